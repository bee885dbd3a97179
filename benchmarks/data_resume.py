"""Going on in the middle of 10^9 shuffled rows: from the manifest's blocks to the first rows, in time and in memory."""

import resource
import sys
import time

from benchmarks.harness import Benchmark, Comparison, Variant, main

ROWS, PER_BLOCK, BLOCKS_PER_CHUNK = 10**9, 4096, 32


def leyden() -> dict[str, float]:
    """Plan the first batch at a position that nothing before has led to."""
    import numpy as np

    from leyden.data.format.table import BlockTable
    from leyden.data.order.lanes import LaneOrder
    from leyden.data.read.subset import Runs, choose_unit_blocks, unit_borders

    rows = np.full(-(-ROWS // PER_BLOCK), PER_BLOCK)
    rows[-1] = ROWS - PER_BLOCK * (len(rows) - 1)
    first = np.cumsum(rows) - rows
    table = BlockTable(
        chunk=np.arange(len(rows)) // BLOCKS_PER_CHUNK, first_row=first, rows=rows, offset=first, stored_bytes=rows * 64, tokens=None
    )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    pieces = Runs.all_of(ROWS).cut(unit_borders(table, choose_unit_blocks(table, 1)))
    found = LaneOrder(pieces, seed=1, shuffle=True).rows(3, 123_456_789, 123_456_789 + 64)
    seconds = time.perf_counter() - start
    if len(set(found[0].tolist())) != 64:
        raise RuntimeError("64 positions have 64 rows")
    return {"seconds": seconds, "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000}


BENCHMARK = Benchmark(
    claim="going on inside a billion rows takes a tenth of a second and 50 MB",
    variants={"leyden": Variant(run=leyden)},
    comparisons=[
        Comparison(of="leyden", metric="seconds", limit=0.1),
        Comparison(of="leyden", metric="megabytes", limit=50.0),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_resume"))
