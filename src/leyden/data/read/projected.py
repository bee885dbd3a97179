"""`Projection`: of remote blocks only the columns that are wanted, where that saves half of the bytes.

A block comes in two round trips, its header and then the buffers of its wanted columns; those of neighbours come at once.
It keeps the length of the whole block, with holes, in memory as in the cache: whoever opens it reads it like any other.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

from leyden.core.errors import CorruptDataError
from leyden.data.format.block import ALIGNMENT, BUFFER, COLUMN, HEADER, BlockView
from leyden.data.format.hashing import xxh3_64
from leyden.data.read.native import NativeSource
from leyden.data.read.partial import Partial

WORTH_IT = 0.5  # of a block's bytes: whoever needs more fetches all, and others find them
_MOST_BUFFERS = 5  # of a column


class _Piece(NamedTuple):
    """A block as it lies in one file.

    Args:
        block: Its number.
        part: Which of the block's files it is.
        start: Where it begins in the file.
        length: Its bytes.
        at: Where it belongs in the buffer.
    """

    block: int
    part: int
    start: int
    length: int
    at: int


@final
class Projection:
    """Some columns of a source that lies elsewhere: what the node cache asks of it. Pickles as configuration.

    Args:
        source: The source.
        columns: Which leaves of its schema.
    """

    def __init__(self, source: NativeSource, columns: Iterable[int]) -> None:
        self._source, self._columns = source, sorted(set(columns))
        self._names: dict[int, str] = {}

    def cache_key(self, block: int) -> str:
        """Return a name that says the block's content: the whole block's, and which columns are there."""
        chunk = int(self._source.table.chunk[block])
        name = self._names.get(chunk)
        if name is None:
            places = ",".join(f"{part}.{place}" for part, place in self._places(block))
            name = self._names[chunk] = f"{xxh3_64(places.encode()):016x}"
        return f"{self._source.cache_key(block)}-{name}"

    def cached_bytes(self, block: int) -> int:
        """Return how long the whole block is."""
        return self._source.cached_bytes(block)

    def fetch_run(self, first: int, count: int) -> Sequence[Partial]:
        """Return blocks that lie side by side in one chunk, with two rounds of requests for each of its files."""
        try:
            return self._fetched(range(first, first + count))
        except CorruptDataError:  # a header may have been damaged on its way: once more
            return self._fetched(range(first, first + count))

    def check(self, block: int, buffer: Partial) -> None:
        """Compare the hashes of the wanted columns.

        Raises:
            CorruptDataError: One does not hold.
        """
        self._source.check_columns(block, buffer.view, self._columns)

    def share(self) -> float:
        """Return how much of the first block is wanted, header included: at most 1. Reads its header."""
        if not len(self._source.table.rows):
            return 1.0
        buffer = Partial(self.cached_bytes(0))
        found = {0: buffer}
        more = sum(length for part in self._parts(0) for piece in self._fetch_heads(found, part) for _, length in self._rest(piece, buffer))
        return min(1.0, (buffer.held_bytes + more) / len(buffer))

    def _fetched(self, blocks: range) -> list[Partial]:
        found = {block: Partial(self.cached_bytes(block)) for block in blocks}
        for part in self._parts(blocks[0]):
            pieces = self._fetch_heads(found, part)
            wanted = [(piece, span) for piece in pieces for span in self._rest(piece, found[piece.block])]
            if not wanted:
                continue
            spans = [(piece.start + offset, length) for piece, (offset, length) in wanted]
            for (piece, (offset, _)), data in zip(wanted, self._source.read_parts(self._name_of(pieces[0]), spans), strict=True):
                found[piece.block].put(piece.at + offset, data)
        return list(found.values())

    def _fetch_heads(self, found: dict[int, Partial], part: int) -> list[_Piece]:
        """Fetch the headers of blocks in one of their files, and put them at their places."""
        pieces = [self._piece(block, part) for block in found]
        name = self._name_of(pieces[0])
        prefix = self._source.prefix_of(name)
        heads = self._source.read_parts(name, [(piece.start, min(piece.length, self._head_bytes)) for piece in pieces])
        for piece, head in zip(pieces, heads, strict=True):
            found[piece.block].put(piece.at - len(prefix), prefix + head)
        return pieces

    def _rest(self, piece: _Piece, buffer: Partial) -> list[tuple[int, int]]:
        """Return start and length, within a block of a file, of what is wanted and not in the header's part."""
        view, wanted = self._view(piece, buffer), list[tuple[int, int]]()
        spans = [span for part, place in self._places(piece.block) if part == piece.part for span in view.spans_of(place)]
        for start, length in sorted(span for span in spans if sum(span) > self._head_bytes):
            if wanted and start - sum(wanted[-1]) < ALIGNMENT:
                wanted[-1] = (wanted[-1][0], start + length - wanted[-1][0])
            else:
                wanted.append((start, length))
        return wanted

    def _view(self, piece: _Piece, buffer: Partial) -> BlockView:
        file = self._source.files.files_of(piece.block)[piece.part]
        return self._source.view(piece.block, file, self._source.parts_of(piece.block, buffer.view)[piece.part], verify=True)

    def _piece(self, block: int, part: int) -> _Piece:
        spans, prefix = self._source.files.spans(block), self._source.prefix_bytes
        before = sum(length for _, _, length in spans[:part])
        return _Piece(block, part, *spans[part][1:], before + prefix * (part + 1))

    def _name_of(self, piece: _Piece) -> str:
        return self._source.files.spans(piece.block)[piece.part][0]

    def _places(self, block: int) -> list[tuple[int, int]]:
        return sorted(self._source.files.place_of(block, index) for index in self._columns)

    def _parts(self, block: int) -> list[int]:
        return sorted({part for part, _ in self._places(block)})

    @property
    def _head_bytes(self) -> int:
        """At least as much as the longest header has."""
        return HEADER.size + (COLUMN.size + _MOST_BUFFERS * BUFFER.size) * len(self._source.schema.leaves) + ALIGNMENT
