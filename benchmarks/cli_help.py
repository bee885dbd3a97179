"""`leyden --help`, and the help of every group, comes back within 0.15 seconds on an idle core."""

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.harness import Benchmark, Comparison, Variant, main

COMMANDS = ("leyden", "leyden fabric", "leyden ckpt", "leyden doctor")

SCRIPT = "import sys; from leyden.cli.main import main; sys.exit(main())"  # what the installed `leyden` does


def starting(*arguments: str) -> Callable[[], dict[str, float]]:
    """Return a worker that measures the wall time of Python with these arguments."""

    def run() -> dict[str, float]:
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, capture_output=True)  # what is compiled once is not measured
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return {"seconds": time.perf_counter() - start}

    return run


BENCHMARK = Benchmark(
    claim="`leyden --help` and every help below it take at most 0.15 seconds",
    variants={
        "python": Variant(run=starting("-c", "pass")),
        **{command: Variant(run=starting("-c", SCRIPT, *command.split()[1:], "--help")) for command in COMMANDS},
    },
    comparisons=[
        *(Comparison(of=command, limit=0.15) for command in COMMANDS),
        *(Comparison(of=command, to="python") for command in COMMANDS),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.cli_help"))
