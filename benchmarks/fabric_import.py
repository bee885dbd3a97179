"""`import leyden.fabric` costs at most a tenth more than `import torch`.

Each measurement is the CPU time of a fresh interpreter that runs one import statement and ends.
"""

import resource
import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import Benchmark, Comparison, Variant, main


def importing(statement: str) -> Callable[[], dict[str, float]]:
    """Return a worker that measures `statement` in an interpreter of its own."""

    def run() -> dict[str, float]:
        subprocess.run([sys.executable, "-c", statement], check=True)  # what is compiled once is not measured
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", statement], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

    return run


BENCHMARK = Benchmark(
    claim="`import leyden.fabric` takes at most 1.10 times `import torch`",
    variants={
        "torch": Variant(run=importing("import torch")),
        "leyden": Variant(run=importing("from leyden.fabric import Fabric")),
        "torch beside lightning": Variant(run=importing("import torch"), peer="lightning"),
        "lightning": Variant(run=importing("from lightning.fabric import Fabric"), peer="lightning"),
        "torch beside accelerate": Variant(run=importing("import torch"), peer="accelerate"),
        "accelerate": Variant(run=importing("from accelerate import Accelerator"), peer="accelerate"),
    },
    comparisons=[
        Comparison(of="leyden", to="torch", limit=1.10),
        Comparison(of="lightning", to="torch beside lightning"),
        Comparison(of="accelerate", to="torch beside accelerate"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_import"))
