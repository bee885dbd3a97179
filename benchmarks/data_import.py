"""`import leyden.data` takes next to nothing, and its dataset, loader and `optimize` a fraction of LitData's time, without torch."""

import sys

from benchmarks.fabric_import import importing
from benchmarks.harness import Benchmark, Comparison, Variant, main

NAMES = "StreamingDataLoader, StreamingDataset, optimize"

BENCHMARK = Benchmark(
    claim="`import leyden.data` takes less than 0.3 s and loads no torch",
    variants={
        "leyden": Variant(run=importing("import leyden.data")),
        "leyden, three names": Variant(run=importing(f"from leyden.data import {NAMES}; import sys; assert 'torch' not in sys.modules")),
        "litdata": Variant(run=importing(f"from litdata import {NAMES}"), peer="litdata"),
    },
    comparisons=[
        Comparison(of="leyden", limit=0.3),
        Comparison(of="leyden, three names"),
        Comparison(of="leyden, three names", to="litdata"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.data_import"))
