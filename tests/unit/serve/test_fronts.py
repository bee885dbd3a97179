"""The supervisor's end of front ends: words are never lost, values for loggers may be; nobody waits."""

import select
import socket
from typing import Any

import pytest

from leyden.serve.fronts import AttachedFronts, ForkedFronts, ShutdownAsked, log_frame, state_frame
from leyden.serve.log_values import pack
from leyden.serve.wire import Decoder, Frame, Kind, encode


def read_all(sock: socket.socket, fronts: AttachedFronts) -> list[Frame]:
    frames, decoder = list[Frame](), Decoder()
    sock.settimeout(0)
    while True:
        try:
            frames += decoder.feed(sock.recv(1 << 16))
        except BlockingIOError:
            if not fronts.writing():
                return frames
            fronts.events()


def test_a_front_end_that_does_not_read_gets_every_word_and_as_many_values_as_fit() -> None:
    fronts = AttachedFronts()
    theirs = fronts.attach()
    fronts.start(lambda: [state_frame(api=0, wanted=1)])
    value = pack("x" * 100_000)
    taken = [fronts.log(log_frame(0, f"v{number}", value)) for number in range(30)]
    fronts.events()
    assert fronts.writing(), "it is asked again when there is room"
    for number in range(5):
        fronts.tell(state_frame(api=0, wanted=number))
    frames = read_all(theirs, fronts)
    assert [frame.meta["wanted"] for frame in frames if frame.kind is Kind.STATE] == [1, 0, 1, 2, 3, 4]
    assert [frame.meta["k"] for frame in frames if frame.kind is Kind.LOG] == [f"v{number}" for number in range(sum(taken))]
    assert 5 < sum(taken) < 30
    theirs.sendall(encode(Kind.STATE, 0, {"shutdown": True})[0])
    assert fronts.events() == [ShutdownAsked()]
    fronts.close()
    theirs.close()


def test_one_that_is_gone_is_forgotten() -> None:
    fronts = AttachedFronts()
    theirs = fronts.attach()
    fronts.start(list)
    theirs.close()
    fronts.tell(state_frame(api=0, wanted=1))
    found: Any = fronts.events()
    assert found == []
    assert fronts.descriptors() == []
    assert fronts.log(log_frame(0, "a", pack(1))), "nobody is there to be too slow"


@pytest.mark.parametrize("is_told_first", [True, False])
def test_the_listener_is_closed_whichever_comes_first(is_told_first: bool) -> None:
    """The end of the server is told by a signal, that a front end takes no more connections by itself."""

    def be(number: int, sock: socket.socket) -> None:
        sock.sendall(encode(Kind.STATE, 0, {"leaving": True})[0])
        sock.recv(1)  # until the other end is closed

    listener = socket.create_server(("127.0.0.1", 0))
    fronts = ForkedFronts(1, lambda: be, list, listener)
    fronts.start(list)
    if not is_told_first:
        fronts.stop()
    select.select(fronts.descriptors(), [], [], 10.0)
    fronts.events()
    if is_told_first:
        assert listener.fileno() >= 0
        fronts.stop()
    assert listener.fileno() < 0
    fronts.close()
