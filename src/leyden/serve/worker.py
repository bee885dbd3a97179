"""The process that runs a user's model: `worker_main` is what a supervisor starts.

It sets the API up, listens at its address, and does what front ends send until the supervisor says DRAIN. It has one thread.
Nobody waits for a worker to find out that it is alone: it ends at once when the control line does, and on Linux the kernel ends
it with its parent, even while a model computes.

| exit status | |
|---|---|
| 0 | drained |
| 1 | a bug, or `SystemExit` of a hook; its traceback came as STATE |
| 3 | `setup` failed; its traceback came as STATE |
| 4 | the control line ended |
"""

import contextlib
import dataclasses
import functools
import gc
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from leyden.core.log import LogSetup, by_settings, show
from leyden.serve.answers import Answers
from leyden.serve.api import LitAPI
from leyden.serve.callbacks.callback import Callback, EventTypes
from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.control import SETUP_FAILED, ControlLine
from leyden.serve.desk import Desk, Greeting
from leyden.serve.executors.choice import executor_for
from leyden.serve.executors.executor import Executor
from leyden.serve.hooks import plan_of
from leyden.serve.loading import importing
from leyden.serve.processes import die_with_parent, keep_memory, leave_signals
from leyden.serve.specs.adapted import adapted
from leyden.serve.turns import serve

FAILED = 1
_BACKLOG = 128


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSpec:
    """What a worker is to be.

    It is pickled by `multiprocessing`; the API in it is bytes, so that the worker itself can tell why they cannot be read.

    Args:
        packed: The API and the callbacks, from `packed`.
        api: The API's number in its server.
        name: The worker's, for logs.
        path: The API's, for logs.
        address: The path of the unix socket to listen at; in a folder that only this user can enter.
        device: What `setup` gets.
        token: What front ends must say; empty if they need none.
        stall_seconds: For how long a client may not read its stream.
        logs: Whether there are loggers: else `log()` warns.
        log: How the process writes its log; by default as the settings say.
        replacements: Arguments of each `LitServer` in the user's file, as the command line gives them.
        dies_with_parent: Whether the kernel ends it with the *thread* that starts it (Linux): only for a main thread.
    """

    packed: bytes
    api: int
    name: str
    address: str
    path: str = ""
    device: str | list[str] = "cpu"
    token: str = ""
    stall_seconds: float = 60.0
    logs: bool = False
    log: LogSetup | None = None
    replacements: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dies_with_parent: bool = True


def packed(api: LitAPI, callbacks: Sequence[Callback] = ()) -> bytes:
    """Return what a worker needs of the user's code."""
    return pickle.dumps((api, list(callbacks)))


def unpacked(spec: WorkerSpec) -> tuple[LitAPI, list[Callback]]:
    """Return the API and the callbacks; what defines them is imported."""
    with importing(spec.replacements):
        return pickle.loads(spec.packed)  # noqa: S301 - written by our own supervisor


def worker_main(spec: WorkerSpec, sock: socket.socket) -> None:
    """Be a worker; the process ends with this function.

    Args:
        spec: What it is to be.
        sock: The worker's end of the control line.
    """
    leave_signals()
    if spec.dies_with_parent:
        die_with_parent()
    keep_memory()
    show(spec.log or by_settings(), always={"api": spec.path})  # else the tracebacks of hooks would be seen by nobody
    control = ControlLine(sock)
    control.hear()  # the parent may have ended before the kernel knew
    began = time.monotonic()
    doing = "Loading the API"
    try:
        api, callbacks = unpacked(spec)
        doing = "setup()"
        executor = set_up(api, CallbackRunner(callbacks), spec, control)
        doing = f"Listening at {spec.address}"
        listener = listening_at(spec.address)
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises, SystemExit too: the supervisor must know
        _leave(control, f"{doing} raised {_said(error)}", error, SETUP_FAILED)
    try:
        work(spec, executor, listener, control, time.monotonic() - began)
    except BaseException as error:  # noqa: BLE001 - a boundary: what ends a process is told
        _leave(control, f"The worker ended: {_said(error)}", error, FAILED)
    control.bye()


def work(spec: WorkerSpec, executor: Executor, listener: socket.socket, control: ControlLine, setup_seconds: float) -> None:
    """Do requests until the control line says DRAIN.

    Args:
        spec: What the worker is to be.
        executor: Does them.
        listener: Where front ends connect.
        control: Is told that the worker is ready.
        setup_seconds: How long that took.
    """
    api: LitAPI = executor.api
    # Where each begins for itself none waits for a batch: `max_batch_size` of a loop is how many it computes at once.
    batch = 1 if executor.concurrency > 1 else api.max_batch_size
    shape = {"api": spec.api, "mb": batch, "stream": api.stream, "conc": executor.concurrency}
    desk = Desk(listener, Greeting(spec.name, spec.token, shape), api.max_batch_size)
    desk.watch(control.link, control.hear)
    control.on_drain = desk.drain
    control.wait_with(functools.partial(desk.watch_writing, control.link))
    if control.must_drain:
        desk.drain()
    control.ready({"address": spec.address, "setup_seconds": setup_seconds})
    try:
        serve(desk, executor, Answers(desk, api.max_stream_buffer_bytes, spec.stall_seconds))
    finally:
        desk.close()
        with contextlib.suppress(OSError):
            Path(spec.address).unlink()


def set_up(api: LitAPI, runner: CallbackRunner, spec: WorkerSpec, control: ControlLine) -> Executor:
    """Set an API up, and return what does its requests.

    Args:
        api: It.
        runner: Told before and after.
        spec: What the worker is to be.
        control: Where its `log` goes.
    """
    if spec.logs:
        api._send_log = control.log
    api.device = spec.device
    plan = plan_of(api, LitAPI)
    runner.trigger_event(EventTypes.BEFORE_SETUP, lit_api=api)
    api.setup(spec.device)
    runner.trigger_event(EventTypes.AFTER_SETUP, lit_api=api)
    api.warmup()
    gc.collect()
    gc.freeze()  # a loaded model is hundreds of thousands of objects that stay: walking through them would stop requests for 100 ms
    return executor_for(*adapted(api, plan), runner)


def listening_at(address: str) -> socket.socket:
    """Return the unix socket at a path, listening."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):  # of a worker that was killed
        Path(address).unlink()
    listener.bind(address)
    listener.listen(_BACKLOG)
    return listener


def _said(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _leave(control: ControlLine, message: str, error: BaseException, status: int) -> NoReturn:
    """Tell why, and end the process without waiting for threads that the user's code may have left."""
    control.failed(message, "".join(traceback.format_exception(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
