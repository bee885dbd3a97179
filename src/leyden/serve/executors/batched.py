"""`BatchedExecutor`: requests that came together are computed together."""

from collections.abc import Sequence
from typing import Any, final

from leyden.core.log import about
from leyden.serve.executors.executor import Executor, Stopwatch, answered, called_for_all
from leyden.serve.executors.requests import Request, Sink, Timing, Together
from leyden.serve.faults import Fault, HookCall


@final
class BatchedExecutor(Executor):
    """Decodes each, computes all at once, encodes each: one that is wrong does not take the others along."""

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        watch = Stopwatch()
        kept, inputs = self.decoded(requests, sink)
        decode = watch.lap()
        if not kept:
            return
        about(Together(kept))
        try:
            outputs = self._computed(kept, inputs)
        except Fault as fault:
            for request in kept:
                sink.fault(request, fault)
            return
        predict, encode = watch.lap(), 0.0
        self.events.before_encode()
        for request, output in zip(kept, outputs, strict=True):
            about(request)
            try:
                reply = self.encode(output, request)
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
                sink.fault(request, answered(error, HookCall("encode_response"), request))
            else:
                encode += watch.lap()
                sink.reply(request, reply, Timing(decode, predict, encode))
        self.events.after_encode()

    def _computed(self, requests: Sequence[Request], inputs: Sequence[Any]) -> list[Any]:
        """Return one output for each request.

        Raises:
            Fault: A hook of the batch raised, or its outputs are not as many.
        """
        api, plan = self.api, self.plan
        hook = "batch"
        try:
            batch = called_for_all(api.batch, plan.batch, inputs, requests)
            hook = "predict"
            self.events.before_predict()
            output = called_for_all(api.predict, plan.predict, batch, requests)
            self.events.after_predict()
            hook = "unbatch"
            outputs = list(called_for_all(api.unbatch, plan.unbatch, output, requests))
        except Exception as error:
            raise answered(error, HookCall(hook), requests[0]) from error
        if len(outputs) != len(requests):
            raise mismatch(len(outputs), len(requests))
        return outputs


def mismatch(outputs: int, requests: int) -> Fault:
    """Return the answer to a batch whose outputs cannot be told apart."""
    message = f"predict() and unbatch() made {outputs} outputs of {requests} requests: return one for each, in their order."
    return Fault(500, "worker.failed", message, detail="Batch size mismatch")
