"""`StreamingExecutor`: one request after another, each answered piece by piece."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

from leyden.serve.executors.executor import Executor, Request, Sink, Stopwatch, Timing, answered, chunk_of
from leyden.serve.faults import HookCall


@final
class StreamingExecutor(Executor):
    """Sends what `encode_response` yields of what `predict` yields, as it comes; a client that left ends the generator."""

    def run(self, requests: Sequence[Request], sink: Sink) -> None:
        for request in requests:
            watch = Stopwatch()
            kept, inputs = self.decoded([request], sink)
            decode = watch.lap()
            if not kept:
                continue
            try:
                send_all(self._pieces(inputs[0], request), request, self.api, sink)
            except Exception as error:  # noqa: BLE001 - the user's generator may raise anything: it is answered
                sink.fault(request, answered(error, HookCall("predict"), request))
            else:
                sink.end(request, Timing(decode, watch.lap()))

    def _pieces(self, value: Any, request: Request) -> Iterable[Any]:
        predict, encode = self.plan.predict, self.plan.encode_response
        outputs = self.api.predict(value, **({"context": request.context} if predict.wants_context else {}))
        if not encode.is_own:
            return outputs
        return self.api.encode_response(outputs, **({"context": request.context} if encode.wants_context else {}))


def send_all(pieces: Iterable[Any], request: Request, api: Any, sink: Sink) -> None:
    """Send pieces as they come, until nobody waits for them; the generator is closed in any case."""
    iterator: Iterator[Any] = iter(pieces)
    try:
        for piece in iterator:
            if request.context.cancelled:
                return
            sink.chunk(request, *chunk_of(api, piece))
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
