"""What wakes a loop: threads, signals; and what does not."""

import os
import select
import signal
import threading

from leyden.serve.waker import Waker


def test_a_thread_wakes_it_once_for_all_that_it_said() -> None:
    waker = Waker()
    thread = threading.Thread(target=lambda: [waker.wake() for _ in range(100_000)])  # more than the sockets hold
    thread.start()
    assert select.select([waker], [], [], 10)[0] == [waker]
    thread.join()
    assert waker.heard()
    assert not waker.heard()
    waker.close()
    waker.wake()  # it may come too late


def test_signals_wake_it_while_it_wants_them() -> None:
    waker, told, before = Waker(), list[signal.Signals](), signal.getsignal(signal.SIGTERM)
    with waker.signals(told.append):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert select.select([waker], [], [], 10)[0] == [waker]
            assert waker.heard()
    assert told == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before
    waker.close()


def test_another_thread_gets_no_signals() -> None:
    waker, before = Waker(), signal.getsignal(signal.SIGTERM)
    found = list[object]()

    def look() -> None:
        with waker.signals(lambda _: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
    waker.close()
