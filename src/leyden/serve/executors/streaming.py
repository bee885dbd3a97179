"""`StreamingExecutor`: one request after another, each answered piece by piece."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

from leyden.serve.executors.executor import Executor, Stopwatch, answered, broken_by, called
from leyden.serve.executors.requests import Request, Sink, Timing


@final
class StreamingExecutor(Executor):
    """Sends what `encode_response` yields of what `predict` yields, as it comes; a client that left ends the generator."""

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        for request in requests:
            watch = Stopwatch()
            kept, inputs = self.decoded([request], sink)
            decode = watch.lap()
            if not kept:
                continue
            try:
                self.events.before_predict()
                self.events.before_encode()
                self._send_all(self._pieces(inputs[0], request), request, sink)
                self.events.after_predict()
                self.events.after_encode()
            except Exception as error:  # noqa: BLE001 - the user's generator may raise anything: it is answered
                sink.fault(request, answered(error, broken_by(error, self.api), request))
            else:
                sink.end(request, Timing(decode, watch.lap()))

    def _pieces(self, value: Any, request: Request) -> Iterable[Any]:
        outputs = called(self.api.predict, self.plan.predict, value, request)
        encode = self.plan.encode_response
        return called(self.api.encode_response, encode, outputs, request) if encode.is_own else outputs

    def _send_all(self, pieces: Iterable[Any], request: Request, sink: Sink) -> None:
        """Send pieces as they come; the generator is closed in any case.

        Raises:
            Fault: Nobody waits for them any more, or the client does not read them.
        """
        iterator: Iterator[Any] = iter(pieces)
        try:
            for piece in iterator:
                if request.is_cancelled():
                    raise request.end
                sink.chunk(request, *self.piece(piece))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
