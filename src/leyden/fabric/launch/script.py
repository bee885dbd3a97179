"""`ScriptLauncher`: this process is the node's first rank and starts its own command again for the others.

Its rendezvous listens before the real port is passed on, so no other program can take the port in between. The parent's
uncaught errors are translated: if they only say that a peer is gone, the peer's own error and exit status replace them.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

import torch
from torch import distributed as dist

from leyden.core import settings
from leyden.core.errors import RankFailedError, StateError
from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.launch import lifeline
from leyden.fabric.launch.children import Children
from leyden.fabric.launch.group import refuse_unguarded, rendezvous
from leyden.fabric.launch.launcher import Launcher
from leyden.fabric.launch.variables import rank_variables, set_variables


@final
class ScriptLauncher(Launcher):
    """Starts the running script again for every other local rank.

    Args:
        environment: Tells address and node.
        num_processes: Ranks on this node, this process included.
        num_nodes: How many nodes take part; the script is started by hand on each.
    """

    def __init__(self, environment: ClusterEnvironment, *, num_processes: int, num_nodes: int = 1) -> None:
        self.environment = environment
        self.num_processes = num_processes
        self.num_nodes = num_nodes
        self.store: dist.Store | None = None
        self._children: Children | None = None
        self._undo: Callable[[], None] = _nothing
        self._hook: _ParentHook | None = None

    @property
    def is_interactive_compatible(self) -> bool:
        """No: a notebook is no script that could run again."""
        return False

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start the other local ranks, unless that was done, and run `function(*args, **kwargs)` in this one.

        Raises:
            RankFailedError: Another rank failed; carries its traceback, rank and exit status.
            StateError: There is no script to start again, or this is not the main thread.
            UnavailableError: The port is taken, or the address not this machine's.
        """
        if self._children is None and not self.environment.creates_processes_externally:
            self._start()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            explained = self.explain(error)
            if explained is error:
                raise
            raise explained from error

    def explain(self, error: BaseException) -> BaseException:
        """Return the `RankFailedError` that `error` is the consequence of (a peer broke off), else `error` itself."""
        return (self._children.explain(error) if self._children is not None else None) or error

    def kill(self) -> None:
        """End all children now."""
        if self._children is not None:
            self._children.end()

    def close(self) -> None:
        """Wait for the children that are left, end those that do not go, and take the variables back. Idempotent."""
        children, self._children = self._children, None
        if children is None:
            return
        atexit.unregister(self._at_exit)
        if self._hook is not None and sys.excepthook is self._hook:
            sys.excepthook = self._hook.previous
        children.close()
        self.store = None
        self._undo()

    # -- starting ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        refuse_unguarded()
        if threading.current_thread() is not threading.main_thread():  # the kernel ties children to the thread that forks
            raise StateError("fabric.launch() was called in a thread; call it in the main thread, before starting others.")
        command = own_command()
        node_rank = self.environment.node_rank()
        if node_rank == 0:
            self.store = rendezvous(self.environment.main_address, self.environment.main_port, hosts=True)
        port = self.store.port if isinstance(self.store, dist.TCPStore) else self.environment.main_port
        environ = rank_variables(self.environment, num_processes=self.num_processes, num_nodes=self.num_nodes, port=port)
        children = Children()
        for local_rank in range(1, self.num_processes):
            variables = {**environ, "LOCAL_RANK": str(local_rank)}
            rank = node_rank * self.num_processes + local_rank
            children.start(rank, lambda path, local_rank=local_rank, variables=variables: _popen(command, local_rank, variables, path))
        children.watch()
        self._children = children
        self._become_rank(children, {**environ, "LOCAL_RANK": "0"})

    def _become_rank(self, children: Children, environ: Mapping[str, str]) -> None:
        """Take what the children were given, so that a second Fabric in this process finds itself launched as well."""
        if "OMP_NUM_THREADS" in environ:
            torch.set_num_threads(min(torch.get_num_threads(), int(environ["OMP_NUM_THREADS"])))
        self._undo = set_variables(environ)
        sys.excepthook = self._hook = _ParentHook(children)
        atexit.register(self._at_exit)

    # -- ending --------------------------------------------------------------------------------------------------

    def _at_exit(self) -> None:
        """Let the others know that this rank is gone, then wait for them."""
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()  # who still waits in a collective fails now, and not at its time-out
        self.close()


class _ParentHook:
    """The `sys.excepthook` of the parent: the children go, and the exit status is that of the rank that failed first."""

    stays_on_top = True

    def __init__(self, children: Children) -> None:
        self.previous = sys.excepthook
        self._children = children
        self._pid = os.getpid()

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.getpid() != self._pid:
            self.previous(kind, error, trace)
            return
        failure = self._children.explain(error)
        self._children.end()
        if failure is None:
            self.previous(kind, error, trace)
            return
        if failure is not error:
            failure.__cause__ = error
        self.previous(RankFailedError, failure, failure.__traceback__)
        raise SystemExit(failure.exit_code)  # Python ends with this status instead of 1


def _nothing() -> None:
    """What there is to undo before the start."""


def own_command() -> list[str]:
    """Return the command that started this process.

    Raises:
        StateError: This is a REPL or a notebook, or the script came over a pipe.
    """
    main = sys.modules["__main__"]
    interactive = hasattr(sys, "ps1") or sys.flags.interactive or "get_ipython" in vars(main)
    by_option = any(option in sys.orig_argv for option in ("-c", "-m"))
    file = getattr(main, "__file__", None)
    if interactive or file == "<stdin>" or (file is None and not by_option):  # what came over a pipe is gone: the others would read nothing
        raise StateError(
            "there is no script that could be started again for the other ranks: this is a notebook, a REPL or a script from a pipe. "
            'Use strategy="ddp_notebook", or put the code into a file and run `python file.py`.'
        )
    command = [sys.executable, *sys.orig_argv[1:]]
    if file is not None and getattr(main, "__spec__", None) is None:  # python file.py: absolute, the script may have changed directory
        index = next((place for place, word in enumerate(command[1:], 1) if Path(word).name == Path(file).name), None)
        if index is not None:
            command[index] = str(Path(file).absolute())
    return command


def _hydra_arguments(local_rank: int) -> tuple[list[str], Path | None]:
    """Return what keeps a Hydra application's other ranks in its run directory, and where it was started."""
    hydra = sys.modules.get("hydra.core.hydra_config")
    if hydra is None or not hydra.HydraConfig.initialized():
        return [], None
    config = hydra.HydraConfig.get()
    overrides = [f'hydra.run.dir="{config.runtime.output_dir}"', f"hydra.job.name=rank_{local_rank}", "hydra.output_subdir=null"]
    return overrides, Path(config.runtime.cwd)


def _popen(command: list[str], local_rank: int, variables: Mapping[str, str], error_file: Path) -> "subprocess.Popen[bytes]":
    overrides, directory = _hydra_arguments(local_rank)
    environ = {**settings.environment(), **variables, lifeline.ERROR_FILE: str(error_file)}
    with warnings.catch_warnings():
        # Only prctl, bound at import, runs between fork and exec.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        return subprocess.Popen(  # noqa: S603 - the command that runs already
            [*command, *overrides],
            cwd=directory,
            env=environ,
            preexec_fn=lifeline.die_with_parent if hasattr(os, "fork") else None,  # noqa: PLW1509 - see above
        )
