"""Workers of loaders outlive a SIGTERM that a whole process group gets.

A scheduler, `kill` or a supervisor signals every process of a run. The one that trains stops after its batch, and may want
another batch before; a worker that died at once would break it off in the middle, before its checkpoint. So workers wait
for the process that reads from them: it ends them itself, or it dies, or half a minute is over.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.1


def begin_worker(worker_id: int, initialise: Callable[[int], Any] | None) -> None:
    """Make this worker patient, then do what the loader's own `worker_init_fn` does. A `worker_init_fn`.

    Args:
        worker_id: The worker's number.
        initialise: The loader's own function.
    """
    reader = os.getppid()

    def on_terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # who asks twice is obeyed
        threading.Thread(target=_outlive, args=(reader,), name="leyden-patience", daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    if initialise is not None:
        initialise(worker_id)


def _outlive(reader: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while os.getppid() == reader and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)  # nobody tells a process that its parent is gone
    os._exit(0)
