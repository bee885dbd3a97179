"""`SingleExecutor`: one request after another."""

from collections.abc import Sequence
from typing import final

from leyden.serve.executors.executor import Executor, Request, Sink, Stopwatch, Timing, answered
from leyden.serve.faults import HookCall


@final
class SingleExecutor(Executor):
    """Does requests one by one, however many were sent together."""

    def run(self, requests: Sequence[Request], sink: Sink) -> None:
        for request in requests:
            watch = Stopwatch()
            kept, inputs = self.decoded([request], sink)
            decode = watch.lap()
            if not kept:
                continue
            hook = "predict"
            try:
                keywords = {"context": request.context} if self.plan.predict.wants_context else {}
                output = self.api.predict(inputs[0], **keywords)
                predict = watch.lap()
                hook = "encode_response"
                reply = self.encode(output, request)
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
                sink.fault(request, answered(error, HookCall(hook), request))
            else:
                sink.reply(request, reply, Timing(decode, predict, watch.lap()))
