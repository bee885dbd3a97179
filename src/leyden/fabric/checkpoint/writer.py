"""`Writer`: the one thread per process that writes asynchronous saves.

One save is in flight; the next one waits for it. Its error surfaces at the next save, at `wait`, or at the end of the
process, which waits for the save and then ends with status 1.
"""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable


class Writer:
    """Runs one function at a time in a thread of its own.

    The thread is a daemon, started per save, so that an idle process has none; `atexit` waits for it, which interpreter
    shutdown would not do before the process group is gone.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._followers: list[Callable[[], None]] = []
        self._is_running = False
        self._error: BaseException | None = None
        self._is_registered = False

    @property
    def is_busy(self) -> bool:
        """Whether a save is being written."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread; waits for the one before, and raises its error instead. In that thread: at once."""
        if self._thread is threading.current_thread():
            function()  # a plug-in that saves in the background inside one that does
            return
        self.wait()
        if not self._is_registered:
            atexit.register(self._at_exit)
            self._is_registered = True
        self._is_running = True
        self._thread = threading.Thread(target=self._run, args=(function,), name="leyden-checkpoint-writer", daemon=True)
        self._thread.start()

    def then(self, function: Callable[[], None]) -> None:
        """Run `function` after what is being written, in its thread; at once if nothing is. Dropped if that fails."""
        with self._lock:
            if self._is_running:
                self._followers.append(function)
                return
        if self._error is None:
            function()

    def settle(self) -> None:
        """Wait until nothing is being written; an error is kept for the next `wait`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            Exception: What the last function raised, once.
        """
        if self._thread is threading.current_thread():
            return
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
            while (follower := self._next_follower()) is not None:
                follower()
        except BaseException as error:  # noqa: BLE001 - the boundary of the thread: raised at the next wait
            with self._lock:
                self._error = error
                self._is_running = False
                self._followers.clear()

    def _next_follower(self) -> Callable[[], None] | None:
        with self._lock:
            if self._followers:
                return self._followers.pop(0)
            self._is_running = False
            return None

    def _at_exit(self) -> None:
        try:
            self.wait()
        except Exception as error:  # noqa: BLE001 - the last place where anyone can hear of it
            error.add_note("The last checkpoint of this process could not be saved; the ones before are still there.")
            sys.excepthook(type(error), error, error.__traceback__)  # the launcher's, or Python's own
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(1)  # raising from atexit leaves the status at 0


_process_writer = Writer()


def process_writer() -> Writer:
    """Return the writer of this process: saves of several Fabrics and plug-ins must not overlap on one group."""
    return _process_writer
