"""`Peer`: a worker as a dispatcher knows it: its link, the calls that it has, and since when it has said nothing."""

from typing import Final, final

from leyden.serve.front.calls import HttpCall
from leyden.serve.link import Link

SILENT_SECONDS: Final = 60.0  # without a word, with calls to answer: it may hang
_MOST_STREAMS: Final = 2**32 - 1


@final
class Peer:
    """A worker.

    Args:
        link: To it.

    Attributes:
        calls: Those that it has not ended, by their number on the link.
        has_spoken: Set whenever something comes from it: that costs less than reading the clock each time.
    """

    __slots__ = ("_heard", "_is_silent", "calls", "has_spoken", "link", "number")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.calls: dict[int, HttpCall] = {}
        self.number = 0
        self.has_spoken = True
        self._heard, self._is_silent = 0.0, False

    def keep(self, call: HttpCall) -> int:
        """Give a call a number that is not in use."""
        number = self.number
        while True:
            number = number + 1 if number < _MOST_STREAMS else 1
            if number not in self.calls:
                break
        self.number = call.stream = number
        self.calls[number] = call
        return number

    def falls_silent(self, now: float) -> bool:
        """Return whether it has said nothing for a minute by now, which was not so at the last look; to be asked about once a second."""
        if self.has_spoken or not self.calls:
            self.has_spoken, self._heard, self._is_silent = not self.calls, now, False  # its time begins with its first call
            return False
        was_silent, self._is_silent = self._is_silent, now - self._heard >= SILENT_SECONDS
        return self._is_silent and not was_silent
