"""`Cursor`: where the iteration of one object stands: an epoch, a position in it, and a loaded position that comes next."""

from typing import final

from leyden.data.read.states import Position


@final
class Cursor:
    """An epoch and a position in it.

    Args:
        epoch: The one that comes first.
    """

    def __init__(self, epoch: int = 1) -> None:
        self.position = Position(epoch=epoch)
        self.handed_out = 0  # since the position: an attribute, because it changes with every sample
        self.loaded: Position | None = None

    @property
    def epoch(self) -> int:
        """The epoch that is at work, or comes next."""
        return self.position.epoch

    def begin(self) -> Position:
        """Begin an iteration, at the loaded position if there is one, else at the start of the epoch."""
        self.position = self.loaded or Position(epoch=self.position.epoch)
        self.loaded, self.handed_out = None, 0
        return self.position

    def now(self) -> Position:
        """Return where it stands."""
        return self.loaded or self.position.advanced(self.handed_out)

    def load(self, position: Position) -> None:
        """Let the next iteration begin there."""
        self.loaded = position

    def use_up(self) -> None:
        """Take note that others went on from the loaded position: next comes that epoch, from its start."""
        if self.loaded is not None:
            self.position, self.handed_out, self.loaded = Position(epoch=self.loaded.epoch), 0, None

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its start; a loaded position of the same epoch stays."""
        if self.loaded is not None and self.loaded.epoch != epoch:
            self.loaded = self.loaded.dropped_for(epoch)
        if self.position.epoch != epoch:
            self.position, self.handed_out = Position(epoch=epoch), 0

    def reset(self) -> None:
        """Go back to the start of the epoch, and forget a loaded position."""
        self.position, self.handed_out, self.loaded = Position(epoch=self.position.epoch), 0, None
