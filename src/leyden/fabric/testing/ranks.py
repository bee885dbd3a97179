"""Real ranks for the kits: a method of a test class runs in several new Python processes that know their rank.

The class is found by its file and name in each process, so test files need not be importable. The processes get the
variables that torchrun sets; a `Fabric` in them joins instead of starting others. Results travel as pickles between our
own processes.
"""

import importlib
import importlib.util
import inspect
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 10.0  # in which the others may notice that a rank has failed, so that their tracebacks are seen too


def run_in_ranks(owner: type, method: str, world_size: int, *, seconds: float = 300.0) -> list[Any]:
    """Call `owner().<method>()` in `world_size` processes and return what they return, in rank order.

    Args:
        owner: A class of a file, at its top level.
        method: A method without arguments.
        world_size: How many processes.
        seconds: After this long all are killed.

    Raises:
        AssertionError: A rank raised, was killed or did not return; holds what every rank said.
    """
    with tempfile.TemporaryDirectory(prefix="leyden-ranks-") as name:
        folder = Path(name)
        task = {"file": inspect.getfile(owner), "module": owner.__module__, "owner": owner.__qualname__, "method": method}
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        processes = [_start(folder, rank, variables) for rank, variables in enumerate(_environments(world_size))]
        try:
            _wait(processes, seconds)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return _results(folder, [process.returncode for process in processes])


def _environments(world_size: int) -> list[Mapping[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    return [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def _start(folder: Path, rank: int, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    with (folder / f"output-{rank}").open("wb") as output:
        command = [sys.executable, "-m", "leyden.fabric.testing.ranks", str(folder), str(rank)]
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603 - this Python


def _wait(processes: "list[subprocess.Popen[bytes]]", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if any(process.returncode for process in processes):
            deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        time.sleep(_POLL_SECONDS)  # waiting for several children at once has no portable deadline


def _results(folder: Path, exit_codes: list[int]) -> list[Any]:
    results: list[Any] = []
    reports: list[str] = []
    for rank, code in enumerate(exit_codes):
        path = folder / f"result-{rank}"
        if path.exists() and code == 0:
            results.append(pickle.loads(path.read_bytes()))  # noqa: S301 - our own process wrote it
        output = (folder / f"output-{rank}").read_text(encoding="utf-8", errors="replace")
        reports.append(f"--- rank {rank}, exit code {code}\n{output}")
    if len(results) < len(exit_codes):
        raise AssertionError("\n".join([f"{len(results)} of {len(exit_codes)} ranks returned", *reports]))
    return results


def _owner(task: Mapping[str, str]) -> type:
    """Return the class, from its file and not by an import: a test file may be in no package."""
    spec = importlib.util.spec_from_file_location(task["module"], task["file"])
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be loaded from {task['file']}")
    found: Any = importlib.util.module_from_spec(spec)
    sys.modules[task["module"]] = found  # so that its classes pickle by reference
    spec.loader.exec_module(found)
    for part in task["owner"].split("."):
        found = getattr(found, part)
    return found  # pyrefly: ignore - a class, by what the parent wrote


def _main(folder: Path, rank: int) -> int:
    try:
        task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        result = getattr(_owner(task)(), task["method"])()
    except Exception:  # noqa: BLE001 - the boundary of a rank: reported by the parent
        traceback.print_exc()
        return 1
    (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2])))
