"""Runs a measurement in several processes of this environment, started by torchrun, and brings the numbers back.

Every contestant is started alike, so that how ranks come to be is no part of what is measured.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_ranks(function: Callable[..., Mapping[str, float]], *arguments: Any, ranks: int = 2) -> list[dict[str, float]]:
    """Return what `function(*arguments)` measured on each rank, in rank order.

    Args:
        function: A function at the top of a benchmark's module; it finds `RANK` and `WORLD_SIZE` in the environment.
        *arguments: Strings and numbers.
        ranks: How many processes.

    Raises:
        RuntimeError: A rank failed; holds what all of them said.
    """
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
        task = {"module": _name_of(function.__module__), "function": function.__name__, "arguments": arguments, "folder": folder}
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [*launcher, "-m", "benchmarks.ranks", json.dumps(task)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if result.returncode:
            raise RuntimeError(f"a rank of {task['module']}.{function.__name__} failed:\n{result.stdout}\n{result.stderr}")
        return [json.loads((Path(folder) / str(rank)).read_text(encoding="utf-8")) for rank in range(ranks)]


def slowest(results: list[dict[str, float]]) -> dict[str, float]:
    """Return each number's largest value over the ranks: all wait for the one that is last."""
    return {name: max(result[name] for result in results) for name in results[0]}


def _name_of(module: str) -> str:
    spec = sys.modules[module].__spec__
    return spec.name if spec is not None else module  # a benchmark that runs with `-m` is called `__main__`


def _work(task: Mapping[str, Any]) -> None:
    measured = getattr(importlib.import_module(task["module"]), task["function"])(*task["arguments"])
    (Path(task["folder"]) / os.environ["RANK"]).write_text(json.dumps(dict(measured)), encoding="utf-8")


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # how ranks end is not measured either: gloo's threads abort now and then where a contestant leaves its group open
