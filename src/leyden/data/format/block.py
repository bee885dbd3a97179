"""Blocks: columns as bytes that can be checked, fetched and decoded alone. The layout is in docs/reference/data-format.md.

A block is a header, a record for each column, one for each buffer, and the buffers, everything at multiples of 64 bytes.
Opening reads the header; a buffer is checked and decoded when its column is asked for.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError
from leyden.data.format.column import FIXED, NULL, Column
from leyden.data.format.compress import Compression, expand
from leyden.data.format.dtypes import by_code, by_name
from leyden.data.format.hashing import xxh3_64

ALIGNMENT = 64
MAGIC = b"LDBLOCK1"
HEADER = struct.Struct("<8sQIIQQIHHIIQ")
COLUMN = struct.Struct("<BBBBIII8IQQ")
BUFFER = struct.Struct("<QQQQBB6x")
VALIDITY, OFFSETS, INNER_OFFSETS, SHAPES, VALUES = range(5)
HAS_NULLS, IS_NPY = 1, 2
AES_GCM = 1
_HASH_OF_NOTHING = xxh3_64(b"")
_LARGEST_RANK = 8


class Cipher(Protocol):
    """Encrypts the buffers of one chunk."""

    def encrypt(self, raw: Any, block: int, buffer: int, raw_bytes: int, role: int) -> bytes:
        """Return ciphertext and tag."""
        ...

    def decrypt(self, stored: Any, block: int, buffer: int, raw_bytes: int, role: int) -> bytes:
        """Return what was encrypted; raises `CorruptDataError` if it is not what it was."""
        ...


class Packing(NamedTuple):
    """How the columns of a block become bytes.

    Args:
        compression: Of every buffer of a column that may be compressed.
        compressible: For each column, whether its values may be compressed; files that are already are not.
        cipher: Encrypts each buffer.
    """

    compression: Compression = Compression()
    compressible: Sequence[bool] = ()
    cipher: Cipher | None = None


PLAIN = Packing()


def align(size: int) -> int:
    """Return the next multiple of 64."""
    return (size + ALIGNMENT - 1) & -ALIGNMENT


def pack_block(columns: Sequence[Column], *, number: int, chunk_id: int, first_row: int, packing: Packing = PLAIN) -> bytearray:
    """Return a block.

    Args:
        columns: All of the same number of rows, in the order of the schema's leaves.
        number: Which block of its chunk it is.
        chunk_id: The chunk's.
        first_row: The number of its first row within the chunk.
        packing: Compression and encryption.
    """
    buffers = [_buffers_of(column) for column in columns]
    header_bytes = align(HEADER.size + COLUMN.size * len(columns) + BUFFER.size * sum(map(len, buffers)))
    records, stored, offset = bytearray(), list[tuple[int, Any]](), header_bytes
    column_records = bytearray()
    index = 0
    for place, (column, own) in enumerate(zip(columns, buffers, strict=True)):
        column_records += _column_record(column, index, own)
        may_shrink = packing.compressible[place] if packing.compressible else True
        for role, array in own:
            raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            codec, data = packing.compression.shrink(raw) if may_shrink or role != VALUES else (0, raw)
            if packing.cipher is not None and raw:
                data = packing.cipher.encrypt(data, number, index, len(raw), role)
            size = len(data)
            records += BUFFER.pack(offset if size else 0, size, len(raw), xxh3_64(data) if size else _HASH_OF_NOTHING, role, codec)
            if size:
                stored.append((offset, data))
                offset = align(offset + size)
            index += 1
    block = bytearray(offset)
    block[HEADER.size : HEADER.size + len(column_records)] = column_records
    block[HEADER.size + len(column_records) : HEADER.size + len(column_records) + len(records)] = records
    for start, data in stored:
        block[start : start + len(data)] = data
    rows = columns[0].rows if columns else 0
    cipher = AES_GCM if packing.cipher is not None else 0
    fields = (number, rows, chunk_id, first_row, header_bytes, len(columns), cipher, index, 0, offset)
    HEADER.pack_into(block, 0, MAGIC, 0, *fields)
    struct.pack_into("<Q", block, 8, xxh3_64(memoryview(block)[16:header_bytes]))
    return block


def _buffers_of(column: Column) -> list[tuple[int, NDArray[Any]]]:
    """Return the buffers with their roles, in the order of the format."""
    if column.kind == NULL:
        return []
    found = [
        (VALIDITY, column.validity),
        (OFFSETS, column.offsets),
        (INNER_OFFSETS, column.inner_offsets),
        (SHAPES, column.shapes),
        (VALUES, column.values),
    ]
    return [(role, array) for role, array in found if array is not None]


def _column_record(column: Column, first: int, buffers: list[tuple[int, NDArray[Any]]]) -> bytes:
    if column.kind == NULL:
        return COLUMN.pack(NULL, 0, 0, 0, column.rows, first, 0, *[0] * _LARGEST_RANK, 0, 0)
    nulls = 0
    if column.validity is not None:
        nulls = column.rows - int(np.unpackbits(column.validity, count=column.rows, bitorder="little").sum())
    flags = (HAS_NULLS if nulls else 0) | (IS_NPY if column.is_npy else 0)
    dims = (*column.dims, *[0] * (_LARGEST_RANK - len(column.dims)))
    raw = sum(array.nbytes for _, array in buffers)
    return COLUMN.pack(column.kind, by_name(column.dtype).code, _rank_of(column), flags, nulls, first, len(buffers), *dims, raw, 0)


def _rank_of(column: Column) -> int:
    if column.kind == FIXED:
        return len(column.dims)
    if column.shapes is not None:
        return int(column.shapes.shape[1])
    return 0 if column.inner_offsets is None and column.dtype == "uint8" and column.kind == 2 else 1


@final
class BlockView:
    """A block in memory or in a map.

    Args:
        buffer: The bytes; only the header and the buffers of wanted columns need to be there.
        where: The chunk's name, for errors.
        verify: Whether hashes are compared: of the header at once, of a buffer when its column is asked for.
        cipher: Decrypts.

    Raises:
        CorruptDataError: It is no block, or its header is damaged.
    """

    __slots__ = (
        "_buffer",
        "_cipher",
        "_columns",
        "_has_cipher",
        "_verify",
        "_where",
        "chunk_id",
        "first_row",
        "number",
        "rows",
        "stored_bytes",
    )

    def __init__(self, buffer: Any, where: str = "block", *, verify: bool = True, cipher: Cipher | None = None) -> None:
        view = memoryview(buffer)
        if len(view) < HEADER.size or view[:8] != MAGIC:
            raise CorruptDataError(f"{where}: these bytes are no block: they do not begin with {MAGIC.decode()}.")
        fields = HEADER.unpack_from(view)
        self.number, self.rows, self.chunk_id, self.first_row = fields[2:6]
        header_bytes, self._columns, has_cipher, buffers = fields[6:10]
        self.stored_bytes = fields[11]
        self._buffer, self._cipher, self._verify = view, cipher, verify
        self._has_cipher = has_cipher == AES_GCM
        self._where = f"{where}, block {self.number}"
        expected = align(HEADER.size + COLUMN.size * self._columns + BUFFER.size * buffers)
        if header_bytes != expected or len(view) < header_bytes:
            raise CorruptDataError(f"{self._where}: the header is damaged: it says that it has {header_bytes:,} bytes.")
        if verify and xxh3_64(view[16:header_bytes]) != fields[1]:
            raise CorruptDataError(f"{self._where}: the header is damaged: its hash is not the one that it holds.")
        if self._has_cipher and cipher is None:
            raise CorruptDataError(f"{self._where} is encrypted, and no key was given: pass `encryption=`.")

    @property
    def header_hash(self) -> int:
        """The hash that the header holds."""
        return int.from_bytes(self._buffer[8:16], "little")

    @property
    def num_columns(self) -> int:
        """How many columns there are."""
        return int(self._columns)

    def column(self, index: int) -> Column:
        """Return column number `index`, checked and decoded; read only.

        Raises:
            CorruptDataError: A buffer is damaged; the message names block, column and buffer.
        """
        (kind, code, rank, flags, _nulls, first, *rest), records = self._records(index)
        found: dict[int, NDArray[np.uint8]] = {}
        for place, record in enumerate(records):
            found[record.role] = self._decoded(index, first + place, record)
        if kind == NULL:
            return Column(NULL, "none", (), self.rows, np.empty(0, np.uint8))
        dtype, dims = by_code(code), tuple(rest[1 : 1 + rank]) if kind == FIXED else ()
        try:
            values = found[VALUES].view(dtype.storage)
            return Column(
                kind=kind,
                dtype=dtype.name,
                dims=dims,
                rows=self.rows,
                values=values.reshape(self.rows, *dims) if kind == FIXED else values,
                offsets=_viewed(found.get(OFFSETS), np.int64),
                inner_offsets=_viewed(found.get(INNER_OFFSETS), np.int64),
                shapes=found[SHAPES].view(np.uint32).reshape(self.rows, rank) if SHAPES in found else None,
                validity=found.get(VALIDITY),
                is_npy=bool(flags & IS_NPY),
            )
        except (KeyError, ValueError) as error:
            raise CorruptDataError(f"{self._where}, column {index}: its buffers do not fit its {self.rows:,} rows ({error}).") from error

    def spans_of(self, index: int) -> list[tuple[int, int]]:
        """Return start and length of each buffer of a column; of empty ones nothing."""
        return [(record.offset, record.stored) for record in self._records(index)[1] if record.stored]

    def check(self) -> None:
        """Compare every hash, and find bytes that are not zero between buffers.

        Raises:
            CorruptDataError: Something is damaged.
        """
        last = align(HEADER.size + COLUMN.size * self._columns + BUFFER.size * HEADER.unpack_from(self._buffer)[9])
        for index in range(self._columns):
            self.column(index)
            for offset, stored, *_ in self._records(index)[1]:
                if stored:
                    self._check_gap(last, offset)
                    last = offset + stored
        self._check_gap(last, self.stored_bytes)

    def _check_gap(self, start: int, stop: int) -> None:
        if any(self._buffer[start:stop]):
            raise CorruptDataError(f"{self._where}: the padding at byte {start:,} is not zero.")

    def _records(self, index: int) -> tuple[tuple[int, ...], list["_Buffer"]]:
        column = COLUMN.unpack_from(self._buffer, HEADER.size + COLUMN.size * index)
        start = HEADER.size + COLUMN.size * self._columns + BUFFER.size * column[5]
        return column, [_Buffer(*BUFFER.unpack_from(self._buffer, start + BUFFER.size * place)) for place in range(column[6])]

    def _decoded(self, index: int, number: int, record: "_Buffer") -> NDArray[np.uint8]:
        data = self._buffer[record.offset : record.offset + record.stored]
        where = f"{self._where}, column {index}, buffer {number}"
        if len(data) != record.stored:
            raise CorruptDataError(f"{where}: {len(data):,} of its {record.stored:,} bytes are there.")
        if self._verify and (found := xxh3_64(data) if record.stored else _HASH_OF_NOTHING) != record.digest:
            raise CorruptDataError(f"{where} is damaged: hash {found:016x} instead of {record.digest:016x}.")
        plain: Any = data
        if self._has_cipher and record.stored:
            assert self._cipher is not None  # noqa: S101 - the constructor made sure
            plain = self._cipher.decrypt(data, self.number, number, record.raw, record.role)
        return np.frombuffer(expand(record.codec, plain, record.raw, where), np.uint8)


class _Buffer(NamedTuple):
    offset: int
    stored: int
    raw: int
    digest: int
    role: int
    codec: int


def _viewed(array: NDArray[np.uint8] | None, dtype: Any) -> NDArray[Any] | None:
    return None if array is None else array.view(dtype)
