"""The methods of torch's `SummaryWriter` that we do not write ourselves (graphs, audio, video, meshes, projections, …).

It builds the events, we put them into our own file: TensorBoard reads one event file per run reliably. Needs `tensorboard`
and is imported only when such a method is called.
"""

import time
from collections.abc import Callable
from typing import Any

from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

Put = Callable[[bytes], None]


class _OurFile(FileWriter):
    """Takes the events that `SummaryWriter` makes, as bytes, to `put`."""

    def __init__(self, log_dir: str, put: Put) -> None:  # the base's would open a file
        self._directory = log_dir
        self._put = put

    def get_logdir(self) -> str:
        return self._directory

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self._put(event.SerializeToString())

    def flush(self) -> None:
        return

    def close(self) -> None:
        return

    def reopen(self) -> None:
        return


class SummaryAdapter(SummaryWriter):
    """A `SummaryWriter` whose file is ours.

    Args:
        log_dir: The run's directory; `add_embedding` writes files of its own there.
        put: Takes each encoded event.
    """

    def __init__(self, log_dir: str, put: Put) -> None:
        self._file = _OurFile(log_dir, put)
        super().__init__(log_dir)

    def _get_file_writer(self) -> Any:
        self.file_writer: Any = self._file
        self.all_writers: Any = {self._file.get_logdir(): self._file}
        return self._file
