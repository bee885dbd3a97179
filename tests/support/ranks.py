"""Real ranks for tests: `run_ranks` starts N Python processes, joins them in a gloo group and collects what they return.

```python
def rank_sum() -> int:                     # module level, in the test file
    tensor = torch.tensor(dist.get_rank())
    dist.all_reduce(tensor)
    return int(tensor)

assert run_ranks(rank_sum, 2) == [1, 1]
```

The function is found by file and name in each rank, so test files need not be importable. Arguments and results travel as
pickles between our own processes. A rank that fails makes `RanksError` with the traceback and output of **every** rank.

One *nursery* process per test session has torch imported and forks the ranks: importing torch for each rank of each test
took most of the time. Ranks inherit nothing else: neither test modules nor anything of leyden.
"""

import atexit
import contextlib
import faulthandler
import importlib
import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IN_RANK = "IN_A_RANK_OF_A_TEST"
GRACE_SECONDS = 10.0  # how long the others may take to notice that a rank has failed, so that their tracebacks are seen too


class RanksError(AssertionError):
    """A rank raised, exited or did not return in time; the message holds what every rank said."""


def run_ranks(
    function: Callable[..., Any] | str,
    world_size: int,
    *,
    args: Sequence[Any] = (),
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    join: bool = True,
) -> list[Any]:
    """Run `function(*args)` in `world_size` real processes and return their results in rank order.

    Args:
        function: A module-level function, `"module:function"`, `"path/to/file.py:function"`, or Python source that
            defines `main(*args)`.
        world_size: How many processes.
        args: Arguments of every rank; a rank tells itself apart by `torch.distributed.get_rank()` or `RANK`.
        timeout: Seconds for the whole run; then every rank's stack is dumped and all are killed.
        env: Further environment variables.
        join: Whether the ranks join a gloo group first; without it `MASTER_ADDR`, `MASTER_PORT`, `RANK`, … are only set.

    Raises:
        RanksError: A rank failed.
    """
    if IN_RANK in os.environ:  # a rank imports the file of its function again, and would start ranks of its own without end
        raise RanksError("run_ranks was called while a rank imports this file: put the call under `if __name__ == '__main__':`.")
    with tempfile.TemporaryDirectory(prefix="leyden-ranks-") as name:
        folder = Path(name)
        # The arguments are a pickle of their own: they may hold classes of the test file, which is imported in between.
        task = {"function": _address(function, folder), "args": pickle.dumps(tuple(args)), "join": join, "timeout": timeout}
        (folder / "task").write_bytes(pickle.dumps(task))
        environment = {**os.environ, **_common_environment(world_size), **(env or {})}
        request = {"folder": name, "world_size": world_size, "timeout": timeout, "environment": environment}
        return _results(folder, _nursery.ask(request))


def _address(function: Callable[..., Any] | str, folder: Path) -> tuple[str, str, str]:
    """Return (file or module, module name, function name)."""
    if callable(function):
        if "<" in function.__qualname__:
            raise TypeError(f"{function.__qualname__} is local; run_ranks needs a function at module level")
        return function.__code__.co_filename, function.__module__.replace("__main__", "__mp_main__"), function.__qualname__
    if "\n" not in function and ":" in function:
        module, _, attribute = function.rpartition(":")
        return module, Path(module).stem if module.endswith(".py") else module, attribute
    source = folder / "source.py"
    source.write_text(function)
    return str(source), "source", "main"


def _common_environment(world_size: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _results(folder: Path, exit_codes: list[int]) -> list[Any]:
    results: list[Any] = []
    reports: list[str] = []
    failed = False
    for rank, code in enumerate(exit_codes):
        path = folder / f"result-{rank}"
        kind, value = pickle.loads(path.read_bytes()) if path.exists() else ("lost", "left no result (killed, exited, or timed out)")
        failed |= kind != "returned" or code != 0
        results.append(value)
        output = (folder / f"output-{rank}").read_text(errors="replace")
        reports.append(f"--- rank {rank}, exit code {code}: {'returned' if kind == 'returned' else value}\n{output}")
    if failed:
        raise RanksError("\n".join([f"of {len(exit_codes)} ranks not every one succeeded", *reports]))
    return results


class _Nursery:
    """This process's end of the nursery: started at the first request, gone with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: Mapping[str, Any]) -> list[int]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RanksError(f"the process that forks ranks ended with exit code {process.wait()}")
        codes: list[int] = json.loads(answer)
        return codes

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
            command = [sys.executable, "-m", "tests.support.ranks"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
            atexit.register(self.close)
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_nursery = _Nursery()

# -- inside the nursery --------------------------------------------------------------------------------------------


def _serve() -> None:
    # Imported once here instead of in every rank of every test; the first optimizer imports `_dynamo`.
    import torch._dynamo
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor  # noqa: F401 - see above

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        ranks = {_fork(request, rank): rank for rank in range(request["world_size"])}
        codes = _watch(ranks, request["timeout"])
        answers.write(json.dumps([codes[rank] for rank in range(request["world_size"])]) + "\n")
        answers.flush()


def _fork(request: Mapping[str, Any], rank: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        folder = Path(request["folder"])
        with (folder / f"output-{rank}").open("wb") as output, Path(os.devnull).open("rb") as nothing:
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source.fileno(), target)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(request["environment"], RANK=str(rank), LOCAL_RANK=str(rank), **{IN_RANK: "1"})
        code = _rank(folder, rank, request["world_size"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a fork must never return into the nursery's loop
        traceback.print_exc()
    finally:
        os._exit(code)


def _watch(ranks: dict[int, int], timeout: float) -> dict[int, int]:
    """Wait until all are gone, or the deadline, or `GRACE_SECONDS` after the first failure; kill what is left."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + timeout + 2  # the ranks dump their stacks and exit at `timeout`
    while len(codes) < len(ranks):
        for pid, rank in ranks.items():
            if rank in codes:
                continue
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                codes[rank] = os.waitstatus_to_exitcode(status)
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS) if codes[rank] else deadline
        time.sleep(0.005)  # the one place that polls: waiting for several children at once has no portable deadline
    return codes


# -- inside a rank -------------------------------------------------------------------------------------------------


def _load(address: tuple[str, str, str]) -> Callable[..., Any]:
    place, name, qualname = address
    target: Any = _module_of(place, name)
    for part in qualname.split("."):
        target = getattr(target, part)
    return target


def _module_of(place: str, name: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be loaded from {place}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that classes of the test file pickle by reference, both ways
    spec.loader.exec_module(module)
    return module


def _work(folder: Path, task: Mapping[str, Any], rank: int, world_size: int) -> Any:
    import torch.distributed as dist

    function = _load(task["function"])
    args = pickle.loads(task["args"])
    if not task["join"]:
        return function(*args)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=task["timeout"]))
    try:
        return function(*args)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _rank(folder: Path, rank: int, world_size: int) -> int:
    task = pickle.loads((folder / "task").read_bytes())
    faulthandler.dump_traceback_later(task["timeout"], exit=True)
    try:
        data, code = pickle.dumps(("returned", _work(folder, task, rank, world_size))), 0
    except BaseException:  # noqa: BLE001 - the boundary of a rank: whatever ends it is reported
        data, code = pickle.dumps(("raised", traceback.format_exc())), 1
    (folder / f"result-{rank}").write_bytes(data)
    return code


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve()
