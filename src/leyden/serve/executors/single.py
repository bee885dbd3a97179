"""`SingleExecutor`: one request after another."""

from collections.abc import Sequence
from time import perf_counter
from typing import final

from leyden.core.log import about
from leyden.serve.callbacks.runner import NO_EVENTS
from leyden.serve.executors.executor import Executor, answered, called
from leyden.serve.executors.requests import Request, Sink, Timing
from leyden.serve.faults import HookCall


@final
class SingleExecutor(Executor):
    """Does requests one by one, however many were sent together."""

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        for request in requests:
            if request.is_cancelled():
                sink.fault(request, request.end)
            else:
                self._one(request, sink)

    def _one(self, request: Request, sink: Sink) -> None:
        about(request)
        events = self.events
        is_told = events is not NO_EVENTS  # six calls of nothing take longer than a small model
        began, hook = perf_counter(), "decode_request"
        try:
            if is_told:
                events.before_decode()
            value = self.decode(request)
            if is_told:
                events.after_decode()
            decoded = perf_counter()
            hook = "predict"
            if is_told:
                events.before_predict()
            output = called(self.api.predict, self.plan.predict, value, request)
            if is_told:
                events.after_predict()
            predicted = perf_counter()
            hook = "encode_response"
            if is_told:
                events.before_encode()
            reply = self.encode(output, request)
            if is_told:
                events.after_encode()
        except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
            sink.fault(request, answered(error, HookCall(hook), request))
        else:
            sink.reply(request, reply, Timing(decoded - began, predicted - decoded, perf_counter() - predicted))
