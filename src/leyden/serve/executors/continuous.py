"""`ContinuousExecutor`: requests join and leave a computation that goes on, step by step.

What is computed in a step, and for whom, is the business of a loop (`leyden.serve.loops`) and of the hooks that it calls. Here
requests are handed to it while it has room, its outputs are sent, and those that nobody waits for are taken out of it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

from leyden.core.log import about, get_logger
from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.executors.executor import Executor, answered, called
from leyden.serve.executors.requests import Request, Sink, Timing, Together
from leyden.serve.faults import Fault, HookCall
from leyden.serve.hooks import HookPlan

_logger = get_logger(__name__)


class StepOutput(Protocol):
    """What a step made for one request: see `leyden.serve.loops.Output`."""

    uid: str
    output: Any
    status: Any


class StepLoop(Protocol):
    """Computes step by step: see `leyden.serve.loops.ContinuousBatchingLoop`."""

    sleep_delay: float
    no_pending_requests: bool

    def add_request(self, uid: str, request: Any, lit_api: Any, lit_spec: Any) -> None:
        """Begin a request."""

    def has_capacity(self, lit_api: Any) -> bool:
        """Return whether another one can begin."""

    def has_active_requests(self, lit_api: Any) -> bool:
        """Return whether any is not done."""

    def step(self, prev_outputs: Any, lit_api: Any, lit_spec: Any) -> Any:
        """Compute the next part of all."""

    def cancel_request(self, uid: str, lit_api: Any) -> None:
        """Drop a request."""


@final
class _Active:
    """A request that the loop computes."""

    __slots__ = ("began", "outputs", "request", "stuck_since", "timing", "unsent")

    def __init__(self, request: Request, began: float) -> None:
        self.request, self.began = request, began
        self.outputs: list[Any] = []  # of a request without a stream
        self.unsent: list[tuple[bytes, str]] = []  # of a stream whose client does not read: the others do not wait for it
        self.stuck_since = 0.0
        self.timing = Timing()


@final
class ContinuousExecutor(Executor):
    """Hands requests to a loop, and its outputs to clients.

    Args:
        api: The user's `LitAPI`, set up.
        plan: What its hooks are.
        callbacks: Told before and after each step.
        loop: Computes.
    """

    def __init__(self, api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None, *, loop: StepLoop) -> None:
        super().__init__(api, plan, callbacks)
        self._loop = loop
        self.sleep_delay = loop.sleep_delay
        self._active: dict[str, _Active] = {}  # what the loop computes
        self._ending: dict[str, _Active] = {}  # what it has computed, and the client has not read
        self._outputs: Any = None
        self._has_begun = self._has_failed = False  # the steps of those that are active; the last step

    @property
    def concurrency(self) -> int:
        # What it really has room for, only the loop knows: what is too much waits in the worker.
        return self.api.max_batch_size if self.api.max_batch_size > 1 else self.api.concurrency

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        waiting = list(reversed(requests))
        while waiting or self._active or self._ending:
            while waiting and self.has_room:
                self.take([waiting.pop()], sink)
            if not self.advance(sink):
                time.sleep(self.sleep_delay)

    @property
    def has_room(self) -> bool:
        """Whether another request may be handed in."""
        if self._loop.no_pending_requests and self._active and self._has_begun:
            return False
        try:
            return bool(self._loop.has_capacity(self.api))
        except Exception:  # the user's hook may raise anything
            _logger.exception("has_capacity() failed")
            return not self._active  # one request is begun, rather than none for ever

    @property
    def is_active(self) -> bool:
        """Whether there is something to compute or to send."""
        return bool(self._active or self._ending) or self._is_computing()

    def _is_computing(self) -> bool:
        """Return whether another step is due: also for what was dropped, if the loop does not heed that."""
        if self._active or self._has_failed:  # without a new request the next step would fail as well
            return bool(self._active)
        try:
            return bool(self._loop.has_active_requests(self.api))
        except Exception:  # the user's hook may raise anything
            _logger.exception("has_active_requests() failed")
            self._has_failed = True
            return False

    def take(self, requests: Sequence[Request], sink: Sink) -> None:
        """Begin requests."""
        kept, inputs = self.decoded(requests, sink)
        self._has_failed = False
        for request, value in zip(kept, inputs, strict=True):
            uid = str(request.number)
            about(request)
            try:
                self._loop.add_request(uid, value, self.api, self.api.spec)
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
                sink.fault(request, answered(error, HookCall("add_request"), request))
            else:
                self._has_begun = self._has_begun and bool(self._active)
                self._active[uid] = _Active(request, time.perf_counter())

    def advance(self, sink: Sink) -> bool:
        """Compute a step, and return whether it made anything."""
        for uid, active in [*self._active.items(), *self._ending.items()]:
            self._tend(uid, active, sink)
        if not self._is_computing():
            return False
        self._has_begun = True
        about(self)
        try:
            self.events.before_predict()
            self._outputs = list(self._loop.step(self._outputs, self.api, self.api.spec) or [])
            self.events.after_predict()
        except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
            self._fail_all(error, sink)
            return True
        for output in self._outputs:
            active = self._active.get(output.uid)
            if active is not None:  # else it was dropped, and the loop does not know yet
                self._send(active, output, sink)
        return bool(self._outputs)

    def log_fields(self) -> Mapping[str, object]:
        """Return what log lines say of the requests that are computed."""
        return Together([active.request for active in self._active.values()]).log_fields()

    def _fail_all(self, error: Exception, sink: Sink) -> None:
        self._outputs, self._has_failed = None, True
        for uid, active in list(self._active.items()):
            self._drop(uid)
            sink.fault(active.request, answered(error, HookCall("step"), active.request))

    def _tend(self, uid: str, active: _Active, sink: Sink) -> None:
        """Look after a request between two steps: whether anybody waits for it, and reads what was sent."""
        request = active.request
        if request.is_cancelled():
            self._drop(uid)
            sink.fault(request, request.end)
        elif active.unsent and not self._is_sent(active, sink) and time.monotonic() - active.stuck_since > sink.stall_seconds:
            self._drop(uid)
            sink.fault(request, sink.stalled())
        elif uid in self._ending and not active.unsent:
            del self._ending[uid]
            sink.end(request, active.timing)

    def _drop(self, uid: str) -> None:
        if self._ending.pop(uid, None) is not None:
            return
        del self._active[uid]
        try:
            self._loop.cancel_request(uid, self.api)
        except Exception:  # the user's hook may raise anything
            _logger.exception("cancel_request() failed")

    # -- outputs ---------------------------------------------------------------------------------------------------

    def _send(self, active: _Active, output: StepOutput, sink: Sink) -> None:
        request, status = active.request, str(output.status)
        try:
            if status == "ERROR":
                raise _failed(output.output)
            if self.api.stream:
                self._add_pieces(active, output.output, sink)
            elif output.output is not None and output.output != "":
                active.outputs.append(output.output)
            if status == "FINISH_STREAMING":
                self._end(output.uid, active, sink)
        except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
            if output.uid in self._active:
                self._drop(output.uid)
            sink.fault(request, answered(error, HookCall("encode_response"), request))

    def _add_pieces(self, active: _Active, output: Any, sink: Sink) -> None:
        if output is None or output == "":
            return
        encode, request = self.plan.encode_response, active.request
        pieces = [output]
        if encode.is_own:
            # A generator gets what a stream's would: outputs one after the other, here one alone.
            pieces = called(self.api.encode_response, encode, iter([output]) if encode.form.yields else output, request)
            pieces = pieces if encode.form.yields else [pieces]
        for piece in pieces:
            if not active.unsent:
                active.stuck_since = time.monotonic()
            active.unsent.append(self.piece(piece))
        self._is_sent(active, sink)

    def _is_sent(self, active: _Active, sink: Sink) -> bool:
        """Send what the client has room for, and return whether that was all."""
        sent = 0
        for data, content_type in active.unsent:
            if not sink.has_room(active.request):
                break
            sink.chunk(active.request, data, content_type)
            sent += 1
        if sent:
            del active.unsent[:sent]
            active.stuck_since = time.monotonic()
        return not active.unsent

    def _end(self, uid: str, active: _Active, sink: Sink) -> None:
        del self._active[uid]
        request, active.timing = active.request, Timing(predict=time.perf_counter() - active.began)
        if active.unsent:
            self._ending[uid] = active
        elif self.api.stream:
            sink.end(request, active.timing)
        else:
            outputs = active.outputs[0] if len(active.outputs) == 1 else active.outputs
            sink.reply(request, self.encode(outputs, request), active.timing)


def _failed(output: Any) -> Fault:
    return output if isinstance(output, Fault) else Fault(500, "worker.failed", f"step() said: {output}", detail="Internal server error")
