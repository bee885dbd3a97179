"""`FunctionLauncher`: every local rank is a child process (spawn, fork, forkserver) that runs one function.

The parent is no rank. It hosts the rendezvous, waits, and returns what local rank 0 returned; so it works in notebooks.
Everything else (who dies with whom, whose traceback is shown) is in `children`.
"""

import contextlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from pickle import PicklingError
from typing import Any, Literal, final

import torch
from torch import distributed as dist
from torch import nn

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnavailableError, listed
from leyden.fabric import rng
from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.launch import lifeline
from leyden.fabric.launch.children import Children
from leyden.fabric.launch.group import DEFAULT_TIMEOUT, host, listen, refuse_unguarded
from leyden.fabric.launch.launcher import Launcher
from leyden.fabric.launch.store import tcp_store
from leyden.fabric.launch.variables import rank_variables, set_variables
from leyden.fabric.trees import map_leaves

StartMethod = Literal["spawn", "fork", "forkserver"]
_METHODS = ("spawn", "fork", "forkserver")


@final
class FunctionLauncher(Launcher):
    """Starts a function in one new process per device.

    Args:
        environment: Tells address and node.
        num_processes: Ranks on this node.
        start_method: `"spawn"` (a fresh Python; the function must be importable), `"fork"` (quick, works with any function and
            in notebooks; not after CUDA was used) or `"forkserver"`.
        num_nodes: How many nodes take part.

    Raises:
        ConfigError: An unknown start method.
        UnavailableError: This platform does not have it.
    """

    def __init__(
        self, environment: ClusterEnvironment, *, num_processes: int, start_method: StartMethod = "spawn", num_nodes: int = 1
    ) -> None:
        if start_method not in _METHODS:
            raise ConfigError(f"start_method={start_method!r} is not accepted: it takes {listed(_METHODS)}.")
        if start_method not in multiprocessing.get_all_start_methods():
            raise UnavailableError(f'start_method={start_method!r} does not exist on {sys.platform}. Use strategy="ddp_spawn".')
        self.environment = environment
        self.num_processes = num_processes
        self.num_nodes = num_nodes
        self.start_method: StartMethod = start_method
        self.store: dist.Store | None = None
        self._children: Children | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "store": None, "_children": None}

    @property
    def is_interactive_compatible(self) -> bool:
        """Forked functions need not be importable, so they may come from a notebook."""
        return self.start_method == "fork"

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `function(*args, **kwargs)` in every local rank and return what local rank 0 returned, on the CPU.

        Raises:
            RankFailedError: A rank failed; carries its traceback.
            ConfigTypeError: The function or an argument cannot be sent to a spawned process.
            StateError: Not possible now: CUDA is in use (fork), or the script has no `__main__` guard.
        """
        if self.environment.creates_processes_externally:
            return function(*args, **kwargs)
        refuse_unguarded()
        self._refuse_fork_after_cuda()
        node_rank, address = self.environment.node_rank(), self.environment.main_address
        listener = listen(self.environment.main_port) if node_rank == 0 else None
        port = self.environment.main_port if listener is None else listener.getsockname()[1]
        children = self._children = Children()
        work = _Work(self, _ProcessState.capture(), function, args, kwargs)
        variables = rank_variables(self.environment, num_processes=self.num_processes, num_nodes=self.num_nodes, port=port)
        try:
            for local_rank in range(self.num_processes):
                own = {**variables, "LOCAL_RANK": str(local_rank)}
                rank = node_rank * self.num_processes + local_rank
                children.start(rank, lambda error_file, own=own: self._start({**own, lifeline.ERROR_FILE: str(error_file)}, work))
            # Only now threads are started: a fork that inherits the store's would abort when it lets go of the store.
            if listener is not None:
                self.store = host(address, listener)
            children.watch()
            children.wait()
            return _read_result(children.folder)
        finally:
            if listener is not None:
                listener.close()
            self.close()

    def close(self) -> None:
        """End what is left and let the rendezvous go. Idempotent."""
        if self._children is not None:
            self._children.close(seconds=0)
            self._children = None
        self.store = None

    def send(self, number: int) -> None:
        """Send a signal to every child; in a child, to nobody."""
        for child in self._children.running if self._children is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def kill(self) -> None:
        """End all children now."""
        if self._children is not None:
            self._children.end()

    def _refuse_fork_after_cuda(self) -> None:
        if self.start_method == "fork" and torch.cuda.is_initialized():
            raise StateError(
                "CUDA has been used in this process, and a forked process cannot use it again. Restart the kernel and launch before the "
                'first .cuda(), or use strategy="ddp_spawn".'
            )

    def _start(self, environ: dict[str, str], work: "_Work") -> BaseProcess:
        context: Any = multiprocessing.get_context(self.start_method)
        process: BaseProcess = context.Process(target=_run, args=(_Environment(environ), work))
        # A spawned process imports the script before it unpickles anything: it must know by then that it is a rank.
        undo = set_variables(environ if self.start_method == "spawn" else {})
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
                process.start()
        except (PicklingError, AttributeError, TypeError) as error:
            name = getattr(work.function, "__qualname__", work.function)
            raise ConfigTypeError(
                f"{name!r} or one of its arguments cannot be sent to a new process: {error}. "
                'Define functions and classes at module level, or use strategy="ddp_fork".'
            ) from error
        finally:
            undo()
        return process

    def enter_child(self) -> None:
        """Become the launcher of a rank: connected to the parent's rendezvous, without children."""
        if self._children is not None:
            self._children.forget_in_fork()
            self._children = None
        environ = settings.environment()
        self.store = tcp_store(environ["MASTER_ADDR"], int(environ["MASTER_PORT"]), hosts=False, timeout=DEFAULT_TIMEOUT)


@dataclass(frozen=True)
class _Work:
    """What a child is sent. In one pickle, so that the launcher inside of an argument stays the same object."""

    launcher: FunctionLauncher
    state: "_ProcessState"
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class _Environment:
    """Variables that are set while this is unpickled, so before what comes behind it in the same pickle."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_environment, (self.environ,)

    def apply(self) -> None:
        settings.environment().update(self.environ)


def _unpickle_environment(environ: dict[str, str]) -> _Environment:
    environment = _Environment(environ)
    environment.apply()
    return environment


@dataclass(frozen=True)
class _ProcessState:
    """What a spawned process does not inherit by itself."""

    random: dict[str, Any]
    deterministic: tuple[bool, bool]
    cudnn: tuple[bool, bool]
    default_dtype: torch.dtype
    matmul_precision: str

    @classmethod
    def capture(cls) -> "_ProcessState":
        cudnn = torch.backends.cudnn
        return cls(
            random=rng.capture(),
            deterministic=(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            cudnn=(cudnn.deterministic, cudnn.benchmark),
            default_dtype=torch.get_default_dtype(),
            matmul_precision=torch.get_float32_matmul_precision(),
        )

    def restore(self) -> None:
        rng.restore(self.random)
        torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.cudnn
        torch.set_default_dtype(self.default_dtype)
        torch.set_float32_matmul_precision(self.matmul_precision)


def _run(environment: _Environment, work: _Work) -> None:
    """The life of a child."""
    environment.apply()  # a forked one has unpickled nothing
    local_rank = int(environment.environ["LOCAL_RANK"])
    rank = int(environment.environ["NODE_RANK"]) * work.launcher.num_processes + local_rank
    folder = Path(environment.environ[lifeline.ERROR_FILE]).parent
    # Local rank 0 has loggers to flush when its parent is killed, and its lifeline ends all the same.
    hook = lifeline.attach(rank, dies_with_parent=local_rank != 0)
    try:
        work.launcher.enter_child()
        work.state.restore()
        map_leaves((work.args, dict(work.kwargs)), unshare)
        result = work.function(*work.args, **work.kwargs)
        if local_rank == 0:
            _write_result(result, folder)
    except Exception as error:
        if hook is None or not hook.quiet:
            raise
        hook.report(error)
        sys.exit(1)


def unshare(leaf: Any) -> Any:
    """Give a module's parameters memory of their own: spawning puts tensors into memory that all children share."""
    if isinstance(leaf, nn.Module):
        with torch.no_grad():
            for tensor in (*leaf.parameters(), *leaf.buffers()):
                if tensor.device.type == "cpu" and tensor.is_shared():
                    tensor.data = tensor.data.clone()
    return leaf


def _write_result(result: Any, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # the parent has given up meanwhile
        torch.save(result, folder / "result.writing")
        (folder / "result.writing").replace(folder / "result")


def _read_result(folder: Path) -> Any:
    path = folder / "result"
    if not path.exists():  # local rank 0 left early by SystemExit
        return None
    return torch.load(path, map_location="cpu", weights_only=False)  # written by our own child
