"""`StreamingRawDataset`: the files of a folder or bucket as they are, map-style, downloaded ahead."""

import collections
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from leyden.core.errors import ConfigError
from leyden.core.files import write_atomic
from leyden.core.storage import is_url
from leyden.data.config import Dir, place_of
from leyden.data.read.downloads import DownloadPolicy, Downloads
from leyden.data.read.folders import cache_folder
from leyden.data.read.indexer import BaseIndexer, FileIndexer, FileMetadata

Item = FileMetadata | Sequence[FileMetadata]


class StreamingRawDataset:
    """Files as samples: `dataset[i]` is the content of file i, or of the files of group i.

    Works under torch's `DataLoader`, which asks for a batch at once (`__getitems__`). Override `setup` to choose, order or
    group files.

    Args:
        input_dir: The folder, URL or `Dir`.
        cache_dir: Where the index, and with `cache_files` the files, are kept.
        indexer: What finds the files; `FileIndexer()` by default.
        storage_options: Of the storage, as for `StreamingDataset`.
        cache_files: Whether downloaded files are kept.
        recompute_index: Whether files are listed anew.
        transform: Applied to each item.
        max_concurrent_downloads: Requests at once; 16 by default.
        max_prefetch: How many items behind the last asked for are downloaded ahead; 0 is none.
        prefetch_cache_size: How many of those are held; twice `max_prefetch` by default.
        item_type: `"bytes"`, or `"path"`: the path of the local file.
        hedge_delay: Seconds after which a slow download is asked for once more; 0 is never.
        download_timeout: Seconds for one file.
        range_parallel_threshold: Files above so many bytes are fetched in parallel ranges; 0 is never.
        range_chunk_size: Bytes of such a range.
        share_index: Whether the index is written beside the data, for other nodes.

    Raises:
        ConfigError: `item_type="path"` without `cache_files`.
        NotFoundError: There are no files.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("hello")
        >>> StreamingRawDataset(folder, cache_dir=tempfile.mkdtemp())[0]
        b'hello'
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        input_dir: "str | os.PathLike[str] | Dir",
        cache_dir: str | os.PathLike[str] | None = None,
        indexer: BaseIndexer | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache_files: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        recompute_index: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        transform: Callable[[Any], Any] | None = None,
        max_concurrent_downloads: int | None = None,
        max_prefetch: int = 16,
        prefetch_cache_size: int | None = None,
        item_type: Literal["bytes", "path"] = "bytes",
        hedge_delay: float = 0.0,
        download_timeout: float = 120.0,
        range_parallel_threshold: int = 0,
        range_chunk_size: int = 8 * 2**20,
        *,
        share_index: bool = False,
    ) -> None:
        if item_type not in {"bytes", "path"}:
            raise ConfigError(f"item_type={item_type!r} is not accepted: it takes 'bytes' or 'path'.")
        if item_type == "path" and not cache_files:
            raise ConfigError("item_type='path' needs local files: pass cache_files=True too.")
        self.input_dir = place_of(input_dir)
        folder = cache_dir or (input_dir.path if isinstance(input_dir, Dir) and input_dir.url else None) or cache_folder()
        self.cache_dir = Path(folder) / "raw" / hashlib.blake2b(self.input_dir.rstrip("/").encode(), digest_size=16).hexdigest()
        self.cache_files = cache_files
        self.item_type = item_type
        self.transform = transform
        self.max_prefetch = max_prefetch
        self._most_held = prefetch_cache_size or 2 * max_prefetch
        policy = DownloadPolicy(
            connections=max_concurrent_downloads or 16,
            hedge_seconds=hedge_delay,
            timeout_seconds=download_timeout,
            range_threshold_bytes=range_parallel_threshold,
            range_bytes=range_chunk_size,
        )
        self._downloads = Downloads(self.input_dir, storage_options, policy)
        self._ahead: collections.OrderedDict[str, Callable[[], bytes]] = collections.OrderedDict()
        self.files = (indexer or FileIndexer()).build_or_load_index(
            self.input_dir, self.cache_dir, storage_options, recompute_index=recompute_index, share_index=share_index
        )
        self.items: list[Item] = list(self.setup(self.files))

    def setup(self, files: list[FileMetadata]) -> Sequence[Item]:
        """Return the items of the dataset: files, or groups of files. Override it to choose, order or group."""
        return files

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return several items; all their files are downloaded at once."""
        wrong = next((index for index in indices if not -len(self) <= index < len(self)), None)
        if wrong is not None:
            raise IndexError(f"index {wrong} is out of range: the dataset has {len(self)} items.")
        asked = [index % len(self) for index in indices]
        waiting = [[self._start(file, is_urgent=True) for file in _files(self.items[index])] for index in asked]
        self._look_ahead(asked[-1] + 1 if asked else 0)
        return [self._finished(self.items[index], waits) for index, waits in zip(asked, waiting, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": collections.OrderedDict()}

    def close(self) -> None:
        """End the downloads."""
        self._ahead.clear()
        self._downloads.close()

    def _finished(self, item: Item, waits: Sequence[Callable[[], Any]]) -> Any:
        found = [wait() for wait in waits]
        value = found[0] if isinstance(item, FileMetadata) else found
        return value if self.transform is None else self.transform(value)

    def _look_ahead(self, start: int) -> None:
        if not is_url(self.input_dir):
            return
        for item in self.items[start : start + self.max_prefetch]:
            for file in _files(item):
                if file.path not in self._ahead and not (self.cache_files and self._local(file).exists()):
                    self._ahead[file.path] = self._downloads.start(file, is_urgent=False)
        while len(self._ahead) > self._most_held:
            self._ahead.popitem(last=False)

    def _start(self, file: FileMetadata, *, is_urgent: bool) -> Callable[[], Any]:
        path = self._local(file)
        if not is_url(self.input_dir) or (self.cache_files and path.exists()):
            return (lambda: str(path)) if self.item_type == "path" else path.read_bytes
        wait = self._ahead.pop(file.path, None) or self._downloads.start(file, is_urgent=is_urgent)
        return wait if not self.cache_files else lambda: self._kept(path, wait())

    def _kept(self, path: Path, data: bytes) -> Any:
        write_atomic(path, data, durable=False)
        return str(path) if self.item_type == "path" else data

    def _local(self, file: FileMetadata) -> Path:
        """Return where a file is, or will be, on this machine."""
        return self.cache_dir / "files" / file.path if is_url(self.input_dir) else Path(self.input_dir) / file.path


def _files(item: Item) -> Sequence[FileMetadata]:
    return [item] if isinstance(item, FileMetadata) else item
