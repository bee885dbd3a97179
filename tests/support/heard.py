"""A `Sink` that remembers what executors said, and sees that nobody is answered twice."""

from leyden.serve.executors.requests import Reply, Request, Timing
from leyden.serve.faults import Fault


class Heard:
    """What was said to whom.

    Args:
        room: How many bytes a client may not have read; nobody reads.
        patience: For how many seconds.
    """

    def __init__(self, room: int | None = None, patience: float = 0.05) -> None:
        self.replies: dict[int, Reply] = {}
        self.faults: dict[int, Fault] = {}
        self.chunks: dict[int, list[bytes]] = {}
        self.types: dict[int, str] = {}
        self.timings: dict[int, Timing] = {}
        self.ended: list[int] = []
        self._room = room
        self.stall_seconds = patience

    def reply(self, request: Request, reply: Reply, timing: Timing) -> None:
        self._end(request)
        self.replies[request.number] = reply
        self.timings[request.number] = timing

    def fault(self, request: Request, fault: Fault) -> None:
        self._end(request)
        self.faults[request.number] = fault

    def chunk(self, request: Request, data: bytes, content_type: str) -> None:
        assert request.number not in self.ended
        if not self.has_room(request):
            raise self.stalled()
        request.unread_bytes += len(data)
        self.chunks.setdefault(request.number, []).append(data)
        self.types[request.number] = content_type

    def has_room(self, request: Request) -> bool:
        return self._room is None or request.unread_bytes < self._room

    def stalled(self) -> Fault:
        return Fault(408, "stream.stalled", "The client does not read.")

    def end(self, request: Request, timing: Timing) -> None:
        self._end(request)
        self.timings[request.number] = timing

    def _end(self, request: Request) -> None:
        assert request.number not in self.ended
        self.ended.append(request.number)
