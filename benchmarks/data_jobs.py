"""What a unit of a job costs: 1,000 units of 16 small samples on a local disk, in this process: leases, chunks, records, packing."""

import shutil
import sys
import tempfile

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.streams import tree_seconds

UNITS, PER_UNIT = 1000, 16


def double(number: int) -> int:
    """Return a sample that costs nothing to make."""
    return 2 * number


def write() -> dict[str, float]:
    """Return `ms` of CPU time for each unit."""
    from leyden.data import optimize
    from leyden.data.write import plan

    plan.INPUTS_PER_UNIT = PER_UNIT
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        optimize(double, [1], f"{folder}/first", num_workers=0, verbose=False)  # imports are not what is measured
        cpu = tree_seconds()
        report = optimize(double, list(range(UNITS * PER_UNIT)), f"{folder}/out", num_workers=0, verbose=False)
        seconds = tree_seconds() - cpu
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if report.num_rows != UNITS * PER_UNIT:
        raise RuntimeError(f"{report.num_rows:,} rows were written")
    return {"ms": 1000 * seconds / UNITS}


BENCHMARK = Benchmark(
    claim="a unit of a job costs at most 2 ms of CPU time, its samples left out",
    variants={"a unit": Variant(run=write)},
    comparisons=[Comparison(of="a unit", metric="ms", limit=2.0)],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_jobs"))
