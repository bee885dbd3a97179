"""Who is shown how far a job is."""

import sys

from leyden.core.clock import Clock, SystemClock
from leyden.data.placement import find_place
from leyden.data.write.progress import CalledWatch, Told, Watch


def watch_of(progress: "bool | Told | None", title: str, *, things: str = "inputs", clock: Clock | None = None) -> Watch | None:
    """Return who is shown how far a job is; `None` for nobody. A line is drawn on terminals only, by the first driver.

    Args:
        progress: A function; True or `None`: a line; False: nobody.
        title: Of the line.
        things: What is counted.
        clock: What tells the time.
    """
    if callable(progress):
        return CalledWatch(progress)
    if progress is False or not sys.stderr.isatty() or find_place().rank:
        return None
    from leyden.data.write.progress_line import ProgressLine  # rich takes a while, and is for terminals

    return ProgressLine(title, clock or SystemClock(), things=things)
