"""`ThreadedLogger`: a logger whose rows travel through a channel; the hot path of logging. Abstract.

`log_metrics` reads what can be read at once (numbers, tensors on the CPU), clones what is on a device, and appends to
the channel: one or two microseconds. Everything else happens in the writer thread.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from leyden.fabric.loggers.channel import LIMIT, Channel, Sink
from leyden.fabric.loggers.logger import Logger
from leyden.fabric.loggers.values import readable
from leyden.fabric.loggers.writer_thread import process_writer
from leyden.fabric.rank_zero import rank_zero_only, rank_zero_warn

SAVE_SECONDS = 15.0  # how long `save` and `finalize` wait for a service


class ThreadedLogger(Logger, ABC):
    """A logger behind this process's writer thread.

    Args:
        prefix: Put before each metric's name, joined by `-`.
        flush_every: How many rows wait at most before they are written, besides once a second.
    """

    threaded = True
    is_remote: ClassVar[bool] = False
    """Whether the back-end may hang, so that only the writer thread talks to it; files are also written by the caller."""

    def __init__(self, *, prefix: str = "", flush_every: int = LIMIT) -> None:
        self._prefix = f"{prefix}-" if prefix else ""
        self._flush_every = flush_every
        self._channel: Channel | None = None
        self._next_step = 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue a row.

        Args:
            metrics: Name → number, one-element tensor, or function without arguments that the writer thread calls.
            step: The step they belong to; one more than the last if absent.

        Raises:
            ConfigError: A tensor has several elements.
        """
        if rank_zero_only.rank != 0:
            return
        prefix = self._prefix
        values: dict[str, Any] = {}
        for name, value in metrics.items():
            kind = type(value)
            if kind is Tensor and value.is_cpu and value.dim() == 0:  # the usual case of `_accept`, without its calls
                value = value.item()  # noqa: PLW2901 - read once
            elif kind is not float and kind is not int:
                value = self._accept(name, value)  # noqa: PLW2901 - read once
            values[prefix + name if prefix else name] = value
        channel = self._channel
        if channel is None or channel.closed:
            channel = self._open_channel()
        if step is None:
            step = self._next_step
        elif type(step) is not int:
            step = int(step)
        self._next_step = step + 1
        channel.put((time.time(), step, values))

    def save(self) -> None:
        """Write every row logged so far; a service that hangs is waited for 15 seconds."""
        if (channel := self._channel) is None or channel.closed:
            return
        if self.is_remote:
            process_writer().flush(SAVE_SECONDS)
        else:
            channel.drain()

    def finalize(self, status: str) -> None:
        """Write every row, and warn if some could not be.

        Args:
            status: How the run ended, such as `"success"` or `"failed"`.
        """
        self.save()
        if (channel := self._channel) is None or channel.closed:
            return
        if lost := channel.close():
            rank_zero_warn(
                f"{channel.label}: {lost} entries were dropped because the back-end failed or was too slow; the log says why.", stacklevel=5
            )
        self._channel = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process opens its own channel; rows that wait are this process's to write.
        return {**self.__dict__, "_channel": None}

    @abstractmethod
    def _sink(self) -> Sink:
        """Return what the channel drains into; called when the first row comes, and again after a fork or `finalize`."""

    def _accept(self, name: str, value: Any) -> Any:
        """Return a metric's value that is neither `float` nor `int` as what goes into the row."""
        return readable(name, value)

    def _open_channel(self) -> Channel:
        self._channel = process_writer().open(self._sink(), type(self).__name__, wake_at=self._flush_every, is_remote=self.is_remote)
        return self._channel

    def _opened_channel(self) -> Channel:
        channel = self._channel
        return self._open_channel() if channel is None or channel.closed else channel
