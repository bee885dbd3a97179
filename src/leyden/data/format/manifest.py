"""`Manifest`: what one version of a dataset is, as immutable JSON. It names chunks and says what is in each block.

Blocks are kept as arrays, never as an object each: a billion rows are a few megabytes.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.data.format import canonical
from leyden.data.format.block import ALIGNMENT
from leyden.data.format.chunk import HEADER, ChunkEntry
from leyden.data.format.hashing import digest128, xxh3_64
from leyden.data.format.schema import Schema
from leyden.data.format.table import BlockTable

FORMAT, FORMAT_VERSION = "leyden-data", 1


class Deleted(NamedTuple):
    """The file that holds the deleted rows of a chunk, and how many there are."""

    name: str
    rows: int


class ColumnFile(NamedTuple):
    """A file with more columns of a chunk: the same rows in the same blocks; its key is its own."""

    name: str
    bytes: int
    digest: str
    blocks: str
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry."""
        entry = self._asdict()
        return entry if self.key is not None else {name: entry[name] for name in entry if name != "key"}


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as a manifest names it.

    Args:
        name: Its file below the dataset.
        bytes: How long it is.
        rows: How many rows it stores, deleted ones included.
        digest: Of the file.
        blocks: base64 of u32 pairs: rows and stored bytes / 64.
        tokens: base64 of u64, of a token dataset.
        deleted: Which rows are gone.
        columns: Files with further columns: leaves of `file` k are in number k; where there is none, in the chunk itself.
        key: The wrapped key.
    """

    name: str
    bytes: int
    rows: int
    digest: str
    blocks: str
    tokens: str | None = None
    deleted: Deleted | None = None
    columns: tuple[ColumnFile | None, ...] = ()
    key: str | None = None

    @classmethod
    def of(cls, entry: ChunkEntry) -> "Chunk":
        """Return the chunk of a writer's entry."""
        pairs = [(rows, stored // ALIGNMENT) for rows, stored in entry.blocks]
        tokens = None if entry.tokens is None else packed(np.array(entry.tokens, "<u8"))
        return cls(entry.name, entry.bytes, entry.rows, entry.digest, packed(np.array(pairs, "<u4")), tokens, key=entry.key)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Chunk":
        """Return the chunk of an entry."""
        deleted = entry.get("deleted")
        columns = tuple(map(_column_file, entry.get("columns", ())))
        known: dict[str, Any] = {key: entry.get(key) for key in ("name", "bytes", "rows", "digest", "blocks", "tokens", "key")}
        return cls(**known, deleted=None if deleted is None else Deleted(**deleted), columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Return the entry."""
        entry = {key: getattr(self, key) for key in ("name", "bytes", "rows", "digest", "blocks", "tokens")}
        entry["deleted"] = None if self.deleted is None else self.deleted._asdict()
        entry["columns"] = [None if file is None else file.to_json() for file in self.columns]
        return entry if self.key is None else {**entry, "key": self.key}

    @property
    def files(self) -> tuple[ColumnFile, ...]:
        """The column files that are there."""
        return tuple(file for file in self.columns if file is not None)

    @property
    def live_rows(self) -> int:
        """How many rows are not deleted."""
        return self.rows - (self.deleted.rows if self.deleted else 0)


@final
@dataclasses.dataclass(frozen=True)
class Manifest:
    """One version of a dataset.

    Args:
        version: Its number, from 1.
        schema: Of its rows.
        chunks: In row order.
        settings: How it was filled: `block_bytes block_rows chunk_bytes chunk_size compression`.
        operation: What made it: `create append overwrite …`.
        parent: The version before.
        cipher: How it is encrypted.
        keys: The file of row keys: name and rows.
        lineage: Which job made it, of what.
        storage: `None`, or the format of the files it names.
        extra: Entries of newer writers, kept as they are.
    """

    version: int
    schema: Schema
    chunks: tuple[Chunk, ...]
    settings: Mapping[str, Any]
    operation: str = "create"
    parent: int | None = None
    cipher: Mapping[str, Any] | None = None
    keys: Mapping[str, Any] | None = None
    lineage: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    storage: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of schema, chunks and cipher: two datasets are equal if it is."""
        content = {"schema": self.schema.to_json(), "chunks": [chunk.to_json() for chunk in self.chunks], "cipher": self.cipher}
        return digest128(canonical.dumps(content))

    @cached_property
    def num_rows(self) -> int:
        """Rows that are not deleted."""
        return sum(chunk.live_rows for chunk in self.chunks)

    @cached_property
    def num_stored_rows(self) -> int:
        """Rows that the chunks hold."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def says_nothing(self) -> bool:
        """Whether no sample has ever said what samples look like: every input was left out."""
        return not self.chunks and not self.schema.leaves

    @cached_property
    def num_tokens(self) -> int | None:
        """Tokens of a token dataset."""
        tokens = self.table.tokens
        return None if tokens is None else int(tokens.sum())

    @property
    def chunk_names(self) -> list[str]:
        """The chunks' files."""
        return [chunk.name for chunk in self.chunks]

    @cached_property
    def table(self) -> BlockTable:
        """Every block, as arrays.

        Raises:
            CorruptDataError: The counts of a chunk do not agree.
        """
        pairs = [_unpacked(chunk.blocks, "<u4", chunk.name).reshape(-1, 2) for chunk in self.chunks]
        counts = [len(each) for each in pairs]
        joined = np.concatenate(pairs).astype(np.int64) if pairs else np.empty((0, 2), np.int64)
        rows, stored = joined[:, 0].copy(), joined[:, 1] * ALIGNMENT
        self._check_counts(pairs)
        before = np.cumsum(stored) - stored
        starts = np.cumsum([0, *counts])[:-1]
        per_chunk = before[np.minimum(starts, max(0, len(before) - 1))] if len(before) else np.empty(0, np.int64)
        offset = HEADER.size + before - np.repeat(per_chunk[: len(counts)], counts)
        chunk = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return BlockTable(chunk, np.cumsum(rows) - rows, rows, offset, stored, self._tokens())

    def _tokens(self) -> NDArray[np.int64] | None:
        if not self.chunks or any(chunk.tokens is None for chunk in self.chunks):
            return None
        return np.concatenate([_unpacked(chunk.tokens or "", "<u8", chunk.name) for chunk in self.chunks]).astype(np.int64)

    def _check_counts(self, pairs: Sequence[NDArray[Any]]) -> None:
        for chunk, each in zip(self.chunks, pairs, strict=True):
            if int(each[:, 0].sum()) != chunk.rows:
                raise CorruptDataError(f"the manifest is damaged: the blocks of {chunk.name} do not have its {chunk.rows:,} rows.")

    def to_bytes(self) -> bytes:
        """Return the file: canonical JSON with its own hash."""
        document = {
            **self.extra,
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "version": self.version,
            "parent": self.parent,
            "operation": self.operation,
            "num_rows": self.num_rows,
            "num_stored_rows": self.num_stored_rows,
            "num_tokens": self.num_tokens,
            "schema": self.schema.to_json(),
            "settings": self.settings,
            "chunks": [chunk.to_json() for chunk in self.chunks],
            "cipher": self.cipher,
            "keys": self.keys,
            "lineage": self.lineage,
            "digest": self.digest,
        }
        if self.storage is not None:
            document["storage"] = self.storage
        document["check"] = _check_of(document)
        return canonical.dumps(document)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "Manifest":
        """Return the manifest of a file.

        Args:
            data: The file.
            where: Its name, for errors.

        Raises:
            CorruptDataError: It is torn or edited.
            ConfigError: A newer Leyden wrote it.
        """
        document = canonical.loads(data, where)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise CorruptDataError(f'{where} is no manifest of a dataset: it lacks "format": "{FORMAT}".')
        if int(document.get("format_version", 0)) > FORMAT_VERSION:
            raise ConfigError(
                f"{where} was written by a newer Leyden ({_writer_of(document)}): its format is {document['format_version']}, this one "
                f"reads up to {FORMAT_VERSION}. Upgrade with: pip install --upgrade leyden"
            )
        if document.get("check") != _check_of(document) or not data.endswith(b"\n"):  # the one byte that the hash does not see
            raise CorruptDataError(
                f"{where} is damaged or was edited: its hash is not the one that it holds. `leyden data repair` makes it again."
            )
        return cls._of_document(document)

    @classmethod
    def _of_document(cls, document: Mapping[str, Any]) -> "Manifest":
        fields = {"version", "settings", "operation", "parent", "cipher", "keys", "lineage", "storage"}
        derived = {"format", "format_version", "num_rows", "num_stored_rows", "num_tokens", "schema", "chunks", "digest", "check"}
        return cls(
            schema=Schema.from_json(document["schema"]),
            chunks=tuple(map(Chunk.from_json, document["chunks"])),
            extra={key: value for key, value in document.items() if key not in fields | derived},
            **{key: document[key] for key in fields if key in document},
        )


def _column_file(entry: Mapping[str, Any] | None) -> ColumnFile | None:
    return None if entry is None else ColumnFile(**{key: entry.get(key) for key in ColumnFile._fields})  # type: ignore[arg-type]


def _check_of(document: Mapping[str, Any]) -> str:
    return f"{xxh3_64(canonical.dumps({**document, 'check': ''})):016x}"


def _writer_of(document: Mapping[str, Any]) -> str:
    return str(document.get("lineage", {}).get("leyden", "of unknown version"))


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes as base64."""
    return base64.b64encode(array.tobytes()).decode()


def _unpacked(text: str, dtype: str, name: str) -> NDArray[Any]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype)
    except ValueError as error:
        raise CorruptDataError(f"the manifest is damaged: the table of {name} is no base64 ({error}).") from error
