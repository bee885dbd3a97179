"""Two ranks are up and joined at most as late as with Lightning: `python script.py` to the first barrier behind it.

Wall time, because that is what is waited for; the end of the script is shown too.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Benchmark, Comparison, Variant, main

FABRIC = """
import time
from {package}.fabric import Fabric

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
fabric.barrier()
if fabric.global_rank == 0:
    print("joined", time.time(), flush=True)
"""
TORCH = """
import time
import torch.distributed as dist

dist.init_process_group("gloo")
dist.barrier()
if dist.get_rank() == 0:
    print("joined", time.time(), flush=True)
dist.destroy_process_group()
"""


def launching(source: str, *launcher: str) -> Callable[[], dict[str, float]]:
    """Return a worker that measures how long a script takes to be joined, and to end.

    Args:
        source: The script; its first rank prints when it has passed the barrier.
        *launcher: What stands between Python and the script.
    """

    def run() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
            script = Path(folder) / "script.py"
            script.write_text(source, encoding="utf-8")
            command = [sys.executable, *launcher, str(script)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            start = time.time()  # the clock that the script has too
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=True)
            end = time.time()
            joined = next(float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("joined"))
            return {"seconds": joined - start, "seconds_to_the_end": end - start}

    return run


BENCHMARK = Benchmark(
    claim="`python script.py` has two ranks joined no later than with Lightning",
    variants={
        "torchrun": Variant(run=launching(TORCH, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"), cores=2),
        "leyden": Variant(run=launching(FABRIC.format(package="leyden")), cores=2),
        "lightning": Variant(run=launching(FABRIC.format(package="lightning")), peer="lightning", cores=2),
    },
    comparisons=[
        Comparison(of="leyden", to="lightning", limit=1.0),
        Comparison(of="leyden", to="torchrun"),
        Comparison(of="leyden", to="lightning", metric="seconds_to_the_end"),
    ],
    rounds=7,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_launch"))
