"""`import leyden.trainer` with its two classes costs at most a tenth more than `import torch`.

Each measurement is the CPU time of a fresh interpreter that runs one import statement and ends.
"""

import sys

from benchmarks.fabric_import import importing
from benchmarks.harness import Benchmark, Comparison, Variant, main

BENCHMARK = Benchmark(
    claim="`from leyden.trainer import LightningModule, Trainer` takes at most 1.10 times `import torch`",
    variants={
        "torch": Variant(run=importing("import torch")),
        "leyden": Variant(run=importing("from leyden.trainer import LightningModule, Trainer")),
        "torch beside lightning": Variant(run=importing("import torch"), peer="lightning"),
        "lightning": Variant(run=importing("from lightning.pytorch import LightningModule, Trainer"), peer="lightning"),
        "torch beside ignite": Variant(run=importing("import torch"), peer="ignite"),
        "ignite": Variant(run=importing("from ignite.engine import Engine"), peer="ignite"),
    },
    comparisons=[
        Comparison(of="leyden", to="torch", limit=1.10),
        Comparison(of="lightning", to="torch beside lightning"),
        Comparison(of="ignite", to="torch beside ignite"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_import"))
