"""`BatchedStreamingExecutor`: requests that came together are computed together, and answered piece by piece."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

from leyden.core.log import about
from leyden.serve.api import stream_of_batches
from leyden.serve.executors.batched import mismatch
from leyden.serve.executors.executor import Executor, Stopwatch, answered, broken_by, called_for_all
from leyden.serve.executors.requests import Request, Sink, Timing, Together
from leyden.serve.faults import HookCall


@final
class BatchedStreamingExecutor(Executor):
    """Sends each client its part of what `predict` yields for the batch; when the last client has left, the generator ends."""

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        watch = Stopwatch()
        kept, inputs = self.decoded(requests, sink)
        decode = watch.lap()
        if not kept:
            return
        about(Together(kept))
        open_ones = dict(enumerate(kept))
        try:
            self.events.before_predict()
            self.events.before_encode()
            self._send_all(self._steps(inputs, kept), open_ones, len(kept), sink)
            self.events.after_predict()
            self.events.after_encode()
        except Exception as error:  # noqa: BLE001 - the user's generator may raise anything: it is answered
            call = broken_by(error, self.api)
            if call.hook == "decode_request" and len(kept) > 1:  # a generator of one of them, and nobody knows whose
                call = HookCall("predict")
            fault = answered(error, call, kept[0])
            for request in open_ones.values():
                sink.fault(request, fault)
        else:
            timing = Timing(decode, watch.lap())
            for request in open_ones.values():
                sink.end(request, timing)

    def _steps(self, inputs: Sequence[Any], requests: Sequence[Request]) -> Iterable[Any]:
        """Return what yields one list of pieces for each step, one piece for each request."""
        api, plan = self.api, self.plan
        batch = called_for_all(api.batch, plan.batch, inputs, requests)
        outputs = called_for_all(api.predict, plan.predict, batch, requests)
        steps = called_for_all(api.unbatch, plan.unbatch, outputs, requests) if plan.unbatch.is_own else stream_of_batches(outputs)
        return called_for_all(api.encode_response, plan.encode_response, steps, requests) if plan.encode_response.is_own else steps

    def _send_all(self, steps: Iterable[Any], open_ones: dict[int, Request], size: int, sink: Sink) -> None:
        """Send pieces as they come; who leaves, or cannot be answered, is taken out of `open_ones`.

        Raises:
            Fault: A step has not one piece for each request.
        """
        iterator: Iterator[Any] = iter(steps)
        try:
            for step in iterator:
                pieces = list(step)
                if len(pieces) != size:
                    raise mismatch(len(pieces), size)
                for place, request in list(open_ones.items()):
                    if not self._is_sent(pieces[place], request, sink):
                        del open_ones[place]
                if not open_ones:
                    return
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _is_sent(self, piece: Any, request: Request, sink: Sink) -> bool:
        """Send one client its piece; what goes wrong with that ends this client's stream alone."""
        if request.is_cancelled():
            sink.fault(request, request.end)
            return False
        try:
            sink.chunk(request, *self.piece(piece))
        except Exception as error:  # noqa: BLE001 - a value that cannot be written, or a client that does not read
            sink.fault(request, answered(error, HookCall("encode_response"), request))
            return False
        return True
