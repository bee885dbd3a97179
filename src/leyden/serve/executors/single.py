"""`SingleExecutor`: one request after another."""

from collections.abc import Sequence
from typing import final

from leyden.serve.callbacks.callback import EventTypes
from leyden.serve.executors.executor import Executor, Stopwatch, answered, called
from leyden.serve.executors.requests import GONE, Request, Sink, Timing
from leyden.serve.faults import HookCall


@final
class SingleExecutor(Executor):
    """Does requests one by one, however many were sent together."""

    def run(self, requests: Sequence[Request], sink: Sink) -> None:
        for request in requests:
            if request.is_cancelled():
                sink.fault(request, GONE)
            else:
                self._one(request, sink)

    def _one(self, request: Request, sink: Sink) -> None:
        tell, watch = self.tell, Stopwatch()
        hook = "decode_request"
        try:
            tell(EventTypes.BEFORE_DECODE_REQUEST)
            value = self.decode(request)
            tell(EventTypes.AFTER_DECODE_REQUEST)
            decode = watch.lap()
            hook = "predict"
            tell(EventTypes.BEFORE_PREDICT)
            output = called(self.api.predict, self.plan.predict, value, request)
            tell(EventTypes.AFTER_PREDICT)
            predict = watch.lap()
            hook = "encode_response"
            tell(EventTypes.BEFORE_ENCODE_RESPONSE)
            reply = self.encode(output, request)
            tell(EventTypes.AFTER_ENCODE_RESPONSE)
        except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
            sink.fault(request, answered(error, HookCall(hook), request))
        else:
            sink.reply(request, reply, Timing(decode, predict, watch.lap()))
