"""Readers: what stands between a job's inputs and its function, as LitData has it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from leyden.core.arguments import flag, whole
from leyden.core.errors import ConfigError
from leyden.core.optional import require
from leyden.data.write.described import describe, digest_of


class BaseReader(ABC):
    """Makes of the inputs what the function gets.

    Example:
        ```python
        class Lines(BaseReader):
            def remap_items(self, items, num_workers):
                return [(path, line) for path in items for line in range(count_lines(path))]

            def read(self, item):
                return line_of(*item)

        optimize(fn, inputs=paths, output_dir="lines", reader=Lines())
        ```
    """

    def remap_items(self, items: Sequence[Any], num_workers: int) -> Sequence[Any]:
        """Return the inputs of the job, which need not be those that were given.

        Args:
            items: What was given.
            num_workers: Always 1: what a job's inputs are does not depend on workers.
        """
        del num_workers
        return items

    @abstractmethod
    def read(self, item: Any) -> Any:
        """Return what the function gets of an input."""

    def identity(self) -> Mapping[str, Any]:
        """Return what names this reader, so that a job with a reader that reads something else is another job: JSON values.

        By default the text of its class and all that it holds.
        """
        return describe(self)


def identity_of(reader: Any) -> Mapping[str, Any] | None:
    """Return what names a reader, also one that is no `BaseReader`; `None` without one."""
    if reader is None:
        return None
    return reader.identity() if isinstance(reader, BaseReader) else describe(reader)


@final
class ParquetReader(BaseReader):
    """Hands Parquet files to the function in parts of a number of rows.

    Args:
        cache_folder: Without effect: parts are read from the files themselves.
        num_rows: Of a part, at most.
        to_pandas: Whether a part is a pandas data frame, or a table of pyarrow.

    Raises:
        ConfigError: `num_rows` is no number ≥ 1.
    """

    def __init__(self, cache_folder: str | None = None, num_rows: int = 65536, to_pandas: bool = True) -> None:  # noqa: FBT001, FBT002 - the documented signature
        del cache_folder
        self.num_rows, self.to_pandas = whole("num_rows", num_rows, 1), flag("to_pandas", to_pandas)

    def remap_items(self, items: Sequence[Any], num_workers: int) -> list[tuple[str, int]]:
        """Return a pair of file and first row for each part."""
        del num_workers
        parquet = _parquet()
        return [
            (str(path), first)
            for path in items
            for first in range(0, parquet.ParquetFile(path, memory_map=True).metadata.num_rows, self.num_rows)
        ]

    def read(self, item: tuple[str, int]) -> Any:
        """Return a part: the row groups that hold it are read, and cut."""
        path, first = item
        with _parquet().ParquetFile(path, memory_map=True) as file:
            groups, begin = _groups(file.metadata, first, first + self.num_rows)
            table = file.read_row_groups(groups).slice(first - begin, self.num_rows)
        return table.to_pandas() if self.to_pandas else table


def _parquet() -> Any:
    return require("pyarrow.parquet", extra="parquet", purpose="ParquetReader", package="pyarrow")


def _groups(metadata: Any, first: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups with rows `first` to `stop`, and the row that they begin with."""
    found, begin, at = list[int](), first, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if at < stop and at + rows > first:
            begin = at if not found else begin
            found.append(group)
        at += rows
    return found, begin


@final
class StreamingDataLoaderReader(BaseReader):
    """Hands the batches of a loader to the function, one after another.

    Args:
        dataloader: Anything that yields batches.
    """

    def __init__(self, dataloader: Any) -> None:
        self.dataloader = dataloader
        self._identity = {**describe(type(self)), "loader": digest_of(dataloader)}  # now: later it says how far it has come
        self._batches: Iterator[Any] | None = None
        self._next = 0

    def identity(self) -> Mapping[str, Any]:
        """Return what names the loader as it was given."""
        return self._identity

    def remap_items(self, items: Sequence[Any], num_workers: int) -> list[int]:
        """Return the numbers of the batches."""
        del items, num_workers
        return list(range(len(self.dataloader)))

    def read(self, item: int) -> Any:
        """Return a batch: those before it are passed over."""
        if self._batches is None or item < self._next:
            if hasattr(self.dataloader, "set_epoch"):
                self.dataloader.set_epoch(1)  # every process reads the same one
            self._batches, self._next = iter(self.dataloader), 0
        while self._next < item:
            next(self._batches)
            self._next += 1
        self._next += 1
        return next(self._batches)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None, "_next": 0}


KINDS = {
    "image": frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}),
    "audio": frozenset({".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus"}),
    "video": frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"}),
}


def list_media_folder(root: "str | Path", kind: str = "image", drop_labels: bool = False) -> list[dict[str, str]]:  # noqa: FBT001, FBT002 - the documented signature
    """Return the files of a folder whose folders are labels, in sorted order: `{"path": …, "label": …}` each.

    Args:
        root: The folder.
        kind: `"image"`, `"audio"` or `"video"`.
        drop_labels: Whether labels are left out.

    Raises:
        ConfigError: The kind is another one, or the folder has no such files.

    Example:
        ```python
        optimize(sample, inputs=list_media_folder("photos"), output_dir="data")
        ```
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} is not accepted: it takes {', '.join(map(repr, KINDS))}.")
    top = Path(root)
    files = sorted(path for path in top.rglob("*") if path.suffix.lower() in KINDS[kind] and path.is_file())
    if not files:
        raise ConfigError(f"{str(root)!r} has no {kind} files: they end in {', '.join(sorted(KINDS[kind]))}.")
    found = []
    for path in files:
        parts = path.relative_to(top).parts
        label = {} if drop_labels or len(parts) < 2 else {"label": parts[0]}
        found.append({"path": str(path), **label})
    return found
