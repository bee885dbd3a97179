"""`NativeSource`: the blocks of our own format, mapped from local chunks or read by range from remote ones.

A block is what lies in the chunk, followed by the blocks of its column files (`add_columns`), if there are some. Local
ones are never joined: they are views of as many maps. Hashes are compared when a column is first touched by this process,
so opening a dataset reads nothing but its manifest.
"""

import collections
import functools
import mmap
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError
from leyden.core.forks import restart_after_fork
from leyden.core.lazy import Later
from leyden.core.storage import Storage, is_url, open_storage
from leyden.data.format import deletes
from leyden.data.format.block import BlockView
from leyden.data.format.chunk import HEADER, read_header
from leyden.data.format.joining import as_leaf
from leyden.data.format.keys import KeyIndex
from leyden.data.format.manifest import Chunk, ColumnFile, Manifest
from leyden.data.format.versions import open_manifest
from leyden.data.read.block_files import FileTables
from leyden.data.read.fetch import Patience, read_ranges
from leyden.data.read.options import SourceOptions
from leyden.data.read.source import Block

_MOST_MAPS, _FILES_AT_ONCE = 4096, 16
_ciphers: Any = Later("leyden.data.format.cipher")  # needs a package that few have


def open_native(options: SourceOptions) -> "NativeSource":
    """Return the source of a dataset in our format.

    Raises:
        NotFoundError: There is none, or not this version.
        ConfigError: It is encrypted, and no key or another one's was given.
    """
    storage = open_storage(options.url, options.storage_options)
    manifest = open_manifest(storage, options.version)
    if manifest.storage is not None:
        raise NotFoundError(f"{options.url} is an index over files of {manifest.storage}, and holds no chunks of ours.")
    return NativeSource(options.url, options.storage_options, manifest, verify=options.verify, encryption=options.encryption)


@final
class NativeSource:
    """A version of a dataset in our format: a `BlockSource`, and what the node cache asks of one that lies elsewhere.

    Args:
        url: The dataset's folder or URL.
        options: Of its storage.
        manifest: The version.
        verify: When hashes are compared: `"first"` time a process touches a column, `"always"`, `"never"`.
        encryption: What decrypts.
        patience: How often requests are tried again.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        manifest: Manifest,
        *,
        verify: str = "first",
        encryption: Any = None,
        patience: Patience | None = None,
    ) -> None:
        self._url, self._options, self._verify, self._encryption, self._patience = url, options, verify, encryption, patience
        self.manifest = manifest
        self.schema = manifest.schema
        self.chunk_names = manifest.chunk_names
        self.digest, self.version = manifest.digest, manifest.version
        self.files = FileTables(manifest)
        main = manifest.table
        self.table = main._replace(stored_bytes=self.files.stored_bytes)
        self._first_block = np.searchsorted(main.chunk, np.arange(len(self.chunk_names) + 1))
        self._start()

    def restart(self) -> None:
        """Begin anew in a forked process, with a client of its own."""
        self._storage: Storage | None = None
        self._lock = threading.Lock()

    def _start(self) -> None:
        restart_after_fork(self)
        self.restart()
        self._maps: collections.OrderedDict[str, memoryview] = collections.OrderedDict()
        self._headers: dict[str, bytes] = {}
        self._chunk_ciphers: dict[bytes, Any] = {}
        self._key_index: KeyIndex | None = None
        self._deleted: NDArray[np.int64] | None = None
        self._checked = np.zeros((len(self.table.rows), len(self.schema.leaves)), bool)
        self._open_ciphers()

    def _open_ciphers(self) -> None:
        declared = self.manifest.cipher
        if declared is not None and self._encryption is None:
            raise ConfigError(f"{self._url}: Data is encrypted but no encryption object was provided. Pass encryption=….")
        self._ciphers: Any = None if declared is None else _ciphers.DatasetCiphers(self._encryption, declared)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_url", "_options", "_verify", "_encryption", "_patience", "manifest")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["_url"],
            state["_options"],
            state["manifest"],
            verify=state["_verify"],
            encryption=state["_encryption"],
            patience=state["_patience"],
        )

    @property
    def is_local(self) -> bool:
        """Whether chunks can be mapped."""
        return not is_url(self._url) or self._url.startswith("file:")

    @property
    def deleted(self) -> NDArray[np.int64] | None:
        """Stored rows that are gone, ascending; `None` if none is. Files of them are read once, several at once."""
        rows = [chunk.rows for chunk in self.manifest.chunks]
        found = [(chunk.deleted.name, index) for index, chunk in enumerate(self.manifest.chunks) if chunk.deleted is not None]
        if self._deleted is None and found:
            first, storage = np.cumsum(rows) - rows, self._storage_here()
            with ThreadPoolExecutor(min(len(found), _FILES_AT_ONCE), "leyden-deletes") as pool:
                files = pool.map(functools.partial(self._deleted_in, storage), [name for name, _ in found])
                self._deleted = np.concatenate([each + first[index] for each, (_, index) in zip(files, found, strict=True)])
        return self._deleted

    def _deleted_in(self, storage: Storage, name: str) -> NDArray[np.int64]:
        try:
            return deletes.from_bytes(storage.read(name), name).astype(np.int64)
        except NotFoundError as error:
            raise self._gone(name) from error

    def find_key(self, key: "str | int") -> int:
        """Return the stored row of a key.

        Raises:
            NotFoundError: The dataset has no keys, or not this one.
        """
        if self.manifest.keys is None:
            raise NotFoundError(f"{self._url} has no keys. Write it with optimize(key_fn=…), or use build_keys_index.")
        if self._key_index is None:
            name = str(self.manifest.keys["name"])
            self._key_index = KeyIndex(self._storage_here().read(name), name)
        found, gone = self._key_index.find(key), self.deleted
        if found is None or (gone is not None and found in gone[np.searchsorted(gone, found) :][:1]):
            raise NotFoundError(f"{self._url} has no row of the key {key!r}. Keys are as key_fn gave them: 1 and '1' are two.")
        return found

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> Any:
        """Return the block's bytes: maps of its files if they are local, else what is fetched."""
        del columns  # maps cost nothing; of remote blocks a `Projection` fetches some
        if not self.is_local:
            return self.fetch_run(block, 1)[0]
        spans = self.files.spans(block)
        if self._ciphers is not None:
            return [self._header_of(name) + self._mapped(name)[start : start + length] for name, start, length in spans]
        return [self._mapped(name)[start : start + length] for name, start, length in spans]

    def open(self, block: int, buffer: Any) -> Block:
        """Return the block that a buffer of `fetch`, or the cache's copy of it, holds."""
        return _OpenBlock(self, block, buffer if isinstance(buffer, list) else self.parts_of(block, buffer))

    def parts_of(self, block: int, buffer: Any) -> list[memoryview]:
        """Return the parts of a buffer of `fetch_run`, one for each file that the block lies in."""
        return self.files.cut(block, buffer, self.prefix_bytes)

    def cache_key(self, block: int) -> str:
        """Return a name that says the block's content."""
        chunk = int(self.table.chunk[block])
        digest = self.files.digest_of(chunk)
        return f"{digest}/{block - int(self._first_block[chunk])}"

    def cached_bytes(self, block: int) -> int:
        """Return how long a block is, those of its column files included."""
        return int(self.table.stored_bytes[block]) + self.prefix_bytes * len(self.files.files_of(block))

    @property
    def prefix_bytes(self) -> int:
        """How long what stands before each part is: of encrypted data the header of its file, which holds the salt."""
        return 0 if self._ciphers is None else HEADER.size

    def fetch_run(self, first: int, count: int) -> list[Any]:
        """Return blocks that lie side by side in one chunk, with one request (and one for each column file)."""
        pieces: list[list[Any]] = [[] for _ in range(count)]
        spans = [self.files.spans(block) for block in range(first, first + count)]
        for file in zip(*spans, strict=True):
            name, start, length = file[0][0], file[0][1], sum(span[2] for span in file)
            data = memoryview(self._read(name, start, length))
            for piece, (_, begin, size) in zip(pieces, file, strict=True):
                if self._ciphers is not None:
                    piece.append(self._header_of(name))
                piece.append(data[begin - start : begin - start + size])
        return [piece[0] if len(piece) == 1 else b"".join(piece) for piece in pieces]

    def check(self, block: int, buffer: Any) -> None:
        """Compare every hash of a block.

        Raises:
            CorruptDataError: One does not hold.
        """
        for file, part in zip(self.files.files_of(block), self.parts_of(block, buffer), strict=True):
            self.view(block, file, part, verify=self._verify != "never").check()

    def check_columns(self, block: int, buffer: Any, columns: Sequence[int]) -> None:
        """Compare the hashes of some columns of a block.

        Raises:
            CorruptDataError: One does not hold.
        """
        parts, files = self.parts_of(block, buffer), self.files.files_of(block)
        for part, place in (self.files.place_of(block, index) for index in columns):
            self.view(block, files[part], parts[part], verify=self._verify != "never").column(place)

    def view(self, block: int, file: "Chunk | ColumnFile", part: Any, *, verify: bool) -> BlockView:
        """Return the block of one file, after comparing its header with the manifest."""
        where, cipher = f"chunk {file.name}", None
        if self._ciphers is not None:
            cipher = self._cipher_of(bytes(part[: HEADER.size]), file.key, where)
            part = part[HEADER.size :]
        view = BlockView(part, where, verify=verify, cipher=cipher)
        number = block - int(self._first_block[self.table.chunk[block]])
        if (view.number, view.rows, view.stored_bytes) != (number, int(self.table.rows[block]), len(part)):
            raise CorruptDataError(
                f"{where} is not the one of version {self.version} ({self.digest}): block {number} has {view.rows:,} rows and "
                f"{view.stored_bytes:,} bytes there. It was replaced; open the dataset anew."
            )
        return view

    def _cipher_of(self, header: bytes, key: str | None, where: str) -> Any:
        """Return what decrypts a file; deriving or unwrapping its key is slow, and done once."""
        found = self._chunk_ciphers.get(header)
        if found is None:
            read = read_header(header, where)
            found = self._ciphers.of_chunk(read.chunk_id, read.salt, key)
            self._chunk_ciphers[header] = found
        return found

    def column(self, block: int, index: int, parts: Sequence[Any]) -> Any:
        """Return a column of a block, checked as `verify` says."""
        is_checked = bool(self._checked[block, index])
        verify = self._verify == "always" or (self._verify == "first" and not is_checked)
        part, place = self.files.place_of(block, index)
        found = self.view(block, self.files.files_of(block)[part], parts[part], verify=verify).column(place)
        self._checked[block, index] = True
        return as_leaf(found, self.schema.leaves[index])

    def read_parts(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one of the dataset's files, each given by its start and length."""
        try:
            return read_ranges(self._storage_here(), name, spans, self._patience)
        except NotFoundError as error:
            raise self._gone(name) from error

    def _read(self, name: str, start: int, length: int) -> bytes:
        return self.read_parts(name, [(start, length)])[0]

    def prefix_of(self, name: str) -> bytes:
        """Return what stands before a block of a file in buffers: the file's header, if it is encrypted, as it holds the salt."""
        return b"" if self._ciphers is None else self._header_of(name)

    def _header_of(self, name: str) -> bytes:
        """Return the header of a file; it is read once."""
        found = self._headers.get(name)
        if found is None:
            found = bytes(self._mapped(name)[: HEADER.size]) if self.is_local else self._read(name, 0, HEADER.size)
            self._headers[name] = found
        return found

    def _mapped(self, name: str) -> memoryview:
        with self._lock:
            found = self._maps.get(name)
            if found is None:
                found = self._maps[name] = self._map(name)
                if len(self._maps) > _MOST_MAPS:
                    self._maps.popitem(last=False)
            return found

    def _map(self, name: str) -> memoryview:
        path = f"{local_path(self._url)}/{name}"
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - text paths here
                return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        except FileNotFoundError as error:
            raise self._gone(name) from error
        except ValueError as error:  # an empty file has no map
            raise CorruptDataError(f"chunk {name} is empty.") from error

    def _gone(self, name: str) -> CorruptDataError:
        return CorruptDataError(
            f"chunk {name} of version {self.version} ({self.digest}) is not at {self._url} any more: it was deleted while this dataset "
            "was open, or the copy is not complete. Open the dataset anew."
        )

    def _storage_here(self) -> Storage:
        """Return a client of this process: none crosses a fork."""
        if self._storage is None:
            self._storage = open_storage(self._url, self._options)
        return self._storage


@final
class _OpenBlock:
    """A block of one chunk and its column files."""

    __slots__ = ("_number", "_parts", "_source", "first_row", "rows")

    def __init__(self, source: NativeSource, number: int, parts: Sequence[Any]) -> None:
        self._source, self._number, self._parts = source, number, parts
        self.rows = int(source.table.rows[number])
        self.first_row = int(source.table.first_row[number])

    def column(self, index: int) -> Any:
        """Return column number `index`, checked and decoded."""
        return self._source.column(self._number, index, self._parts)


def local_path(url: str) -> str:
    """Return the folder of a local place."""
    return str(Path(unquote(url.removeprefix("file://")) if url.startswith("file:") else url).expanduser())
