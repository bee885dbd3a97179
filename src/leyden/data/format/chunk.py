"""Chunk files (`*.ldc`): a header, blocks, a footer that names them, a tail that finds the footer.

A chunk is written once, from front to back, and never changed; its name ends in the first digits of its digest, so another
attempt with other bytes never takes its place. The footer repeats what the manifest says, for `repair`.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

import xxhash

from leyden.core.errors import CorruptDataError
from leyden.core.files import storage_error
from leyden.data.format import canonical
from leyden.data.format.block import ALIGNMENT
from leyden.data.format.hashing import crc32c, xxh3_64
from leyden.data.format.schema import Schema

HEADER = struct.Struct("<8sHHIQ16s24x")
TAIL = struct.Struct("<QIIQ8s")
MAGIC, END = b"LDCHUNK1", b"LDCHEND1"
VERSION, ENCRYPTED = 1, 1
SUFFIX = ".ldc"


class Origin(NamedTuple):
    """Where a chunk comes from; its id is a hash of this.

    Args:
        job: The job's id.
        unit: The unit's number, `p` and a number in the pack phase.
        sequence: Which chunk of the unit it is.
    """

    job: str
    unit: str
    sequence: int

    @property
    def chunk_id(self) -> int:
        """The chunk's id.

        Example:
            >>> f"{Origin('a', '0', 0).chunk_id:016x}"
            '2e68e93193cd7fc5'
        """
        return xxh3_64(f"{self.job}/{self.unit}/{self.sequence}".encode())

    def temporary_name(self) -> str:
        """Return what the file is called while it is written: each time another, as several machines may write the same one."""
        return f".chunk-{self.job}-{self.unit}-{self.sequence}-{os.urandom(8).hex()}.tmp"

    def name(self, digest: str) -> str:
        """Return the file's name."""
        unit = f"p{int(self.unit[1:]):07d}" if self.unit.startswith("p") else f"{int(self.unit):08d}"
        return f"chunk-{self.job}-{unit}-{self.sequence:04d}-{digest[:8]}{SUFFIX}"


class ChunkEntry(NamedTuple):
    """A finished chunk, as manifests and done records name it.

    Args:
        name: Its file's name.
        bytes: How long it is.
        rows: How many rows it has.
        digest: Of the whole file.
        blocks: Rows and stored bytes of each block.
        tokens: Of each block of a token dataset.
        key: The wrapped key, of an encrypted chunk with a foreign cipher.
    """

    name: str
    bytes: int
    rows: int
    digest: str
    blocks: list[tuple[int, int]]
    tokens: list[int] | None
    key: str | None = None


@final
class ChunkWriter:
    """Writes one chunk to a temporary file.

    Args:
        path: The file, in the folder where the chunk will lie.
        origin: Where the chunk comes from.
        schema: Of its rows, for the footer; may be set until `finish`.
        salt: 16 bytes, of an encrypted chunk.
        key: The wrapped key of an encrypted chunk.

    Raises:
        StorageError: The disk is full, or refuses.
    """

    def __init__(
        self, path: str | os.PathLike[str], origin: Origin, schema: Schema, *, salt: bytes | None = None, key: str | None = None
    ) -> None:
        self.path, self.origin, self.schema = Path(path), origin, schema
        self.rows, self.blocks, self.tokens = 0, list[tuple[int, int]](), list[int]()
        self._footers: list[list[Any]] = []
        self._hash, self._key = xxhash.xxh3_128(), key
        self.size = 0
        try:
            self._file: BinaryIO = self.path.open("wb")
        except OSError as error:
            raise storage_error(error, self.path) from error
        flags = 0 if salt is None else ENCRYPTED
        self._write(HEADER.pack(MAGIC, VERSION, flags, 0, origin.chunk_id, salt or bytes(16)))

    def add(self, block: bytes | bytearray, rows: int, tokens: int | None = None) -> None:
        """Append a block.

        Args:
            block: From `pack_block`.
            rows: How many it has.
            tokens: How many it has, in a token dataset.
        """
        self._footers.append([rows, self.size, len(block), bytes(block[8:16][::-1]).hex()])
        self._write(block)
        self.blocks.append((rows, len(block)))
        self.rows += rows
        if tokens is not None:
            self.tokens.append(tokens)

    def finish(self, *, durable: bool = True) -> ChunkEntry:
        """Write footer and tail, give the file its name, and return its entry.

        Args:
            durable: Whether the bytes are on the disk when this returns.
        """
        tokens = self.tokens if len(self.tokens) == len(self.blocks) > 0 else None
        footer = canonical.dumps(self._footer(tokens))
        start = self.size
        self._write(footer)
        self._write(TAIL.pack(start, len(footer), crc32c(footer), start + len(footer) + TAIL.size, END))
        digest = self._hash.hexdigest()
        try:
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
            self._file.close()
            target = self.path.with_name(self.origin.name(digest))
            self.path.replace(target)
        except OSError as error:
            raise storage_error(error, self.path, self.size) from error
        self.path = target
        return ChunkEntry(target.name, self.size, self.rows, digest, self.blocks, tokens, self._key)

    def discard(self) -> None:
        """Close and remove the unfinished file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _footer(self, tokens: Sequence[int] | None) -> dict[str, Any]:
        footer = {
            "chunk_id": f"{self.origin.chunk_id:016x}",
            "job": self.origin.job,
            "unit": self.origin.unit,
            "sequence": self.origin.sequence,
            "schema": self.schema.to_json(),
            "blocks": self._footers,
            "rows": self.rows,
            "tokens": tokens,
        }
        return footer if self._key is None else {**footer, "key": self._key}

    def _write(self, data: bytes | bytearray) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise storage_error(error, self.path, len(data)) from error
        self._hash.update(data)
        self.size += len(data)


class ChunkHeader(NamedTuple):
    """What the first 64 bytes of a chunk say."""

    chunk_id: int
    is_encrypted: bool
    salt: bytes


def read_header(data: bytes | memoryview, where: str) -> ChunkHeader:
    """Return what the first 64 bytes of a chunk say.

    Raises:
        CorruptDataError: They are no chunk's, or a newer version's.
    """
    if len(data) < HEADER.size or bytes(data[:8]) != MAGIC:
        raise CorruptDataError(f"{where} is no chunk: it does not begin with {MAGIC.decode()}.")
    _, version, flags, zero, chunk_id, salt = HEADER.unpack_from(data)
    if version > VERSION:
        raise CorruptDataError(f"{where} has version {version} of the chunk format; this Leyden reads up to {VERSION}. Upgrade it.")
    if zero or any(data[HEADER.size - 24 : HEADER.size]) or flags & ~ENCRYPTED:
        raise CorruptDataError(f"{where} is damaged: its header has bytes that should be zero.")
    return ChunkHeader(chunk_id, bool(flags & ENCRYPTED), salt)


def read_footer(data: bytes | memoryview, where: str) -> Mapping[str, Any]:
    """Return the footer of a whole chunk.

    Args:
        data: The whole file.
        where: Its name, for errors.

    Raises:
        CorruptDataError: Footer or tail are damaged or missing.
    """
    if len(data) < HEADER.size + TAIL.size:
        raise CorruptDataError(f"{where} is damaged: {len(data):,} bytes are less than a header and a tail.")
    start, size, checksum, length, end = TAIL.unpack_from(data, len(data) - TAIL.size)
    if end != END or length != len(data) or start + size + TAIL.size != length or start % ALIGNMENT:
        raise CorruptDataError(f"{where} is damaged or cut off: its last {TAIL.size} bytes do not describe a file of {len(data):,} bytes.")
    footer = bytes(data[start : start + size])
    if crc32c(footer) != checksum:
        raise CorruptDataError(f"{where} is damaged: the checksum of its footer is not the one in its tail.")
    found: Mapping[str, Any] = canonical.loads(footer, f"the footer of {where}")
    return found
