"""`Order`: which row comes at which position of an epoch, as a pure function of seed and epoch.

The selection is cut into pieces (blocks of chunks). Permuted, they form a line; the line is cut into even *lanes*, which
are read side by side; within a lane rows are shuffled in *windows* of a few pieces. So every batch mixes many places of the
dataset, and yet only lanes x window blocks are open at a time. Finding position p costs the same anywhere.

Positions go round the lanes in bit-reversed order, so that any run of positions is spread over all of them.
"""

import threading
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.philox import TAG_PIECES, TAG_WINDOW, perm

_KEPT_EPOCHS = 2  # the one that is read, and the one that is planned ahead


class Pieces(Protocol):
    """Runs of rows that are shuffled as one; arrays of equal length."""

    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    copy: NDArray[np.int64]


@final
class LaneOrder:
    """The order of a selection.

    Args:
        pieces: In the order of the selection: first stored row, how many, which copy.
        seed: Of all permutations.
        shuffle: Whether there are any.
        lanes: A power of two.
        window: How many pieces of a lane are shuffled together.

    Raises:
        ConfigError: `lanes` is no power of two, or `window` less than one.
    """

    def __init__(self, pieces: Pieces, *, seed: int, shuffle: bool, lanes: int = 64, window: int = 4) -> None:
        if lanes < 1 or lanes & (lanes - 1):
            raise ConfigError(f"lanes={lanes!r} is not accepted: it takes a power of two, such as 64.")
        if window < 1:
            raise ConfigError(f"window={window!r} is not accepted: it takes a number ≥ 1, such as 4.")
        self._pieces, self._seed, self._shuffle = pieces, seed, shuffle
        self._lanes, self._window = lanes, window
        self.num_rows = int(pieces.rows.sum())
        self._start()

    def _start(self) -> None:
        self._epochs: dict[int, _Epoch] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_epochs", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def rows(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Return what comes at positions `start` to `stop`, or to the end.

        Args:
            epoch: Any whole number.
            start: The first position.
            stop: The one after the last.

        Returns:
            Stored rows, their copies, and the lanes they are on; int64, int64, int32 (n,).
        """
        positions = np.arange(start, max(start, min(stop, self.num_rows)))
        with self._lock:
            return self._epoch(epoch).at(positions)

    def _epoch(self, epoch: int) -> "_Epoch":
        found = self._epochs.get(epoch)
        if found is None:
            while len(self._epochs) >= _KEPT_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            found = self._epochs[epoch] = _Epoch(self._pieces, self._seed, epoch, self._lanes, self._window, shuffle=self._shuffle)
        return found


@final
class _Epoch:
    """The line of one epoch, its lanes, and the window that each lane is at."""

    def __init__(self, pieces: Pieces, seed: int, epoch: int, lanes: int, window: int, *, shuffle: bool) -> None:
        count = len(pieces.rows)
        order = perm(seed, TAG_PIECES, epoch, 0, count) if shuffle else np.arange(count)
        self._first, self._copy = pieces.first[order], pieces.copy[order]
        self._starts = np.zeros(count + 1, np.int64)  # of pieces on the line
        np.cumsum(pieces.rows[order], out=self._starts[1:])
        self._seed, self._epoch, self._window, self._shuffle = seed, epoch, window, shuffle
        self._rev = _reversed_bits(lanes)
        share, rest = divmod(int(self._starts[-1]), lanes)
        self._borders = np.zeros(lanes + 1, np.int64)
        np.cumsum(share + (self._rev < rest), out=self._borders[1:])
        self._piece_of_lane = np.searchsorted(self._starts, self._borders[:-1], side="right") - 1
        self._windows = _Windows(lanes, has_copies=bool(pieces.copy.any()))

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Return rows, copies and lanes of positions, ascending."""
        turn, place = np.divmod(positions, len(self._rev))
        lane = self._rev[place]
        x = self._borders[lane] + turn
        rows, copies = np.empty(len(x), np.int64), np.zeros(len(x), np.int64)
        todo = np.arange(len(x))
        while len(todo):
            missing = self._windows.read(lane[todo], x[todo], todo, rows, copies)
            if len(missing) == 0:
                break
            todo = todo[missing]
            lanes, nearest = np.unique(lane[todo], return_index=True)  # a lane's first position that its window does not hold
            for one, at in zip(lanes.tolist(), x[todo[nearest]].tolist(), strict=True):
                self._open(one, at)
        return rows, copies, lane.astype(np.int32)

    def _open(self, lane: int, x: int) -> None:
        """Put the window of a lane that holds coordinate x into its place."""
        begin = int(self._piece_of_lane[lane])
        piece = int(np.searchsorted(self._starts, x, side="right")) - 1
        number = (piece - begin) // self._window
        last = len(self._starts) - 1
        from_piece, to_piece = begin + number * self._window, min(begin + (number + 1) * self._window, last)
        low = max(int(self._borders[lane]), int(self._starts[from_piece]))
        high = min(int(self._borders[lane + 1]), int(self._starts[to_piece]))
        line = np.arange(low, high)
        if self._shuffle:
            line = low + perm(self._seed, TAG_WINDOW, self._epoch, (lane << 32) + number, high - low)
        held = np.searchsorted(self._starts[from_piece : to_piece + 1], line, side="right") - 1 + from_piece
        self._windows.put(lane, low, self._first[held] + line - self._starts[held], self._copy[held])


@final
class _Windows:
    """The rows of one window of each lane, in one array, so that positions of all lanes are looked up at once."""

    def __init__(self, lanes: int, *, has_copies: bool) -> None:
        self._low, self._high = np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)  # of the window that is held; none yet
        self._base, self._room = np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)
        self._rows = np.zeros(0, np.int64)
        self._used = 0
        self._copies = np.zeros(0, np.int64) if has_copies else None

    def read(
        self, lane: NDArray[np.int64], x: NDArray[np.int64], places: NDArray[np.int64], rows: NDArray[np.int64], copies: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Write what is held into `rows` and `copies` at `places`; return the indices of what is not."""
        low = self._low[lane]
        here = (x >= low) & (x < self._high[lane])
        found = np.flatnonzero(here)
        index = (self._base[lane] + x - low)[found]
        rows[places[found]] = self._rows[index]
        if self._copies is not None:
            copies[places[found]] = self._copies[index]
        return np.flatnonzero(~here)

    def put(self, lane: int, low: int, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> None:
        """Let a lane hold these rows, from coordinate `low` on."""
        if len(rows) > self._room[lane]:
            self._base[lane], self._room[lane] = self._used, len(rows)  # what it held before stays unused: windows are alike
            self._used += len(rows)
            if self._used > len(self._rows):
                self._rows = _longer(self._rows, self._used + len(self._room) * len(rows))
                self._copies = None if self._copies is None else _longer(self._copies, len(self._rows))
        begin = int(self._base[lane])
        self._rows[begin : begin + len(rows)] = rows
        if self._copies is not None:
            self._copies[begin : begin + len(rows)] = copies
        self._low[lane], self._high[lane] = low, low + len(rows)


def _longer(values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    grown = np.empty(size, np.int64)
    grown[: len(values)] = values
    return grown


def _reversed_bits(lanes: int) -> NDArray[np.int64]:
    bits = lanes.bit_length() - 1
    numbers = np.arange(lanes)
    return sum(((numbers >> bit & 1) << (bits - 1 - bit) for bit in range(bits)), np.zeros(lanes, np.int64))


def slice_for(rank: int, world_size: int, rows: int) -> tuple[int, int]:
    """Return where the share of a rank in a global batch begins and ends.

    Args:
        rank: Its number.
        world_size: How many there are.
        rows: How many the batch has.

    Example:
        >>> [slice_for(rank, 3, 8) for rank in range(3)]
        [(0, 2), (2, 5), (5, 8)]
    """
    return rank * rows // world_size, (rank + 1) * rows // world_size
