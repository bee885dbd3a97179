"""What the journal of a job costs: 1,000 units on a local disk, in this process, beside the same samples in 64 units."""

import shutil
import sys
import tempfile
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import tree_seconds

UNITS = 1000
PER_UNIT = 512  # as many inputs as a unit has


def double(number: int) -> int:
    """Return a sample that costs nothing to make."""
    return 2 * number


def write(units: int) -> dict[str, float]:
    """Return CPU `seconds` of writing as many inputs as `UNITS` have, and `ms` of CPU time for each unit.

    Args:
        units: Into how many they are cut.
    """
    from leyden.data import optimize
    from leyden.data.write import plan

    plan.INPUTS_PER_UNIT = UNITS * PER_UNIT // units
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        cpu = tree_seconds()
        report = optimize(double, list(range(UNITS * PER_UNIT)), f"{folder}/out", num_workers=0, verbose=False)
        seconds = tree_seconds() - cpu
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if report.num_rows != UNITS * PER_UNIT:
        raise RuntimeError(f"{report.num_rows:,} rows were written")
    return {"seconds": seconds, "ms": 1000 * seconds / units}


def journal() -> dict[str, float]:
    """Return how many `ms` of CPU time a unit costs beyond its samples: of many units, less those of few, for each unit more."""
    few = 64
    many = write(UNITS)["seconds"]
    return {"ms": 1000 * (many - write(few)["seconds"]) / (UNITS - few)}


BENCHMARK = Benchmark(
    claim="lease, chunk, record and packing of a unit cost at most 2 ms of CPU time",
    variants={"a unit": Variant(run=journal), f"{UNITS} units": Variant(run=partial(write, UNITS))},
    comparisons=[Comparison(of="a unit", metric="ms", limit=2.0), Comparison(of=f"{UNITS} units")],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_jobs"))
