"""`delete_rows`: rows by number, or those that a function picks, are gone from the next version on.

A chunk that loses rows gets a file of their numbers; it is itself not touched, and stored row numbers stay. The windows of
token datasets run over all documents, so their chunks are written anew without the deleted ones.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, NotFoundError
from leyden.data.format import deletes
from leyden.data.format.column import Column
from leyden.data.format.manifest import Chunk, Deleted, Manifest
from leyden.data.interop.columns import taken
from leyden.data.read.subset import Runs
from leyden.data.write.changes.committing import Files, Replacing, commit_change, first_rows, read_keys, write_keys
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.rewriting import Rewriter, new_job
from leyden.data.write.changes.scanning import scanned
from leyden.data.write.changes.target import Place, Target, next_of, open_target

_NO_ROWS = np.zeros(0, np.int64)


def delete_rows(
    input_dir: Place,
    rows: "Sequence[int] | NDArray[Any] | slice | Callable[[Any], Any]",
    *,
    columns: Sequence[str] | None = None,
    encryption: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> DatasetVersion:
    """Delete rows: commit a version without them. Older versions keep them until `gc`.

    Another writer may append at the same time: both changes land. If it changes the same chunks, this one is refused.

    Args:
        input_dir: A folder or URL.
        rows: Numbers of rows as `dataset[i]` counts them (documents, of a token dataset), a slice, a mask of all rows, or a
            function that gets a batch of columns, as `StreamingDataset.take` returns them with `output="numpy"`, and returns an
            array that is true for each row to delete.
        columns: Which leaves the function gets, by name; all by default.
        encryption: What decrypts the data: for a function, and to delete from encrypted token datasets.
        storage_options: Of the storage.

    Returns:
        The new version; the old one if there was nothing to delete.

    Raises:
        NotFoundError: There is no dataset, or no such row.
        ConfigError: `rows` is none of these.
        ConflictError: Another writer changed rows of the same chunks meanwhile.

    Example:
        >>> import tempfile
        >>> from leyden.data import StreamingDataset, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(float, range(6), folder, num_workers=0)
        >>> delete_rows(folder, [0, -1]).num_rows, delete_rows(folder, lambda batch: batch > 3).num_rows
        (4, 3)
        >>> StreamingDataset(folder)[:]
        [1.0, 2.0, 3.0]
    """
    target = open_target(input_dir, storage_options)
    live = Runs.all_of(target.manifest.num_stored_rows, deleted_in(target))
    chosen = _picked(target, rows, columns, encryption) if callable(rows) else _numbers(target, rows)
    if not len(chosen):
        return facts_of(target.manifest)
    files = Files(target.storage)
    try:
        deletion = _deletion(target, live.at(chosen)[0], files, encryption)
    except BaseException:
        files.keep_only([])
        raise
    about = {"deleted_rows": len(chosen), "parents": [{"version": target.manifest.version, "digest": target.manifest.digest}]}

    def make(newest: Manifest) -> Manifest:
        chunks = deletion.replacing.apply(newest, target.url)
        keys = deletion.keys(files, newest)
        return next_of(newest, "delete", about, chunks=chunks, keys=keys)

    return facts_of(commit_change(target, files, make))


def deleted_in(target: Target) -> NDArray[np.int64] | None:
    """Return the stored rows that are gone, ascending; `None` if none is."""
    chunks = target.manifest.chunks
    found = [rows + first for chunk, first in zip(chunks, first_rows(chunks), strict=True) if len(rows := deleted_of(target, chunk))]
    return np.concatenate(found) if found else None


def deleted_of(target: Target, chunk: Chunk) -> NDArray[np.int64]:
    """Return the rows of a chunk that are gone, ascending."""
    if chunk.deleted is None:
        return _NO_ROWS
    return deletes.from_bytes(target.storage.read(chunk.deleted.name), chunk.deleted.name).astype(np.int64)


def _numbers(target: Target, rows: Any) -> NDArray[np.int64]:
    """Return the numbers of rows, ascending, each once."""
    count = target.manifest.num_rows
    if isinstance(rows, slice):
        return np.sort(np.arange(*rows.indices(count)))
    given = np.asarray(rows)
    if given.dtype == np.bool_ and given.shape == (count,):
        return np.flatnonzero(given)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ConfigError(
            f"rows={rows!r:.80} is not accepted: it takes a list of whole numbers, a slice, a mask of all {count} rows, or a function "
            "of a batch. For one row, pass [number]."
        )
    found = given.astype(np.int64)
    wrong = found[(found < -count) | (found >= count)]
    if len(wrong):
        raise NotFoundError(f"row {wrong[0]} is not there: version {target.manifest.version} of {target.url} has {count} rows.")
    return np.unique(np.where(found < 0, found + count, found))


def _picked(target: Target, pick: Callable[[Any], Any], columns: Sequence[str] | None, encryption: Any) -> NDArray[np.int64]:
    """Return the numbers of the rows that a function picks, asked block by block."""
    found = [_NO_ROWS]
    with scanned(target, columns=columns, output="numpy", encryption=encryption) as dataset:
        for start, stop in live_blocks(target):
            answer = np.asarray(pick(dataset.take(slice(start, stop))))
            if answer.dtype != np.bool_ or answer.shape != (stop - start,):
                raise ConfigError(
                    f"the function returned {answer.dtype} of shape {answer.shape} for a batch of {stop - start} rows: return one bool "
                    "for each row, such as batch['label'] == 3."
                )
            found.append(np.flatnonzero(answer) + start)
    return np.concatenate(found)


def live_blocks(target: Target) -> list[tuple[int, int]]:
    """Return first and last number, as `dataset[i]` counts, of the rows that are left of each block; none of empty ones."""
    table, gone = target.manifest.table, deleted_in(target)
    ends = table.first_row + table.rows
    if gone is not None:
        ends = ends - np.searchsorted(gone, ends)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return [(start, stop) for start, stop in zip(starts.tolist(), ends.tolist(), strict=True) if stop > start]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Deletion:
    """What goes from each chunk.

    Args:
        gone: Rows within their chunk, by the chunk's number.
        replacing: What takes the place of the chunks.
        moves: Whether later rows move up.
    """

    gone: Mapping[int, NDArray[np.int64]]
    replacing: Replacing
    moves: bool

    def keys(self, files: Files, newest: Manifest) -> Mapping[str, Any] | None:
        """Write the keys of the rows that are left, and return what the manifest says of them."""
        keys, rows = read_keys(files.storage, newest)
        if not keys:
            return newest.keys
        numbers = {chunk.name: number for number, chunk in enumerate(newest.chunks)}
        first, base = first_rows(newest.chunks), self.replacing.base.chunks
        gone = np.sort(np.concatenate([local + first[numbers[base[number].name]] for number, local in self.gone.items()]))
        kept = np.flatnonzero(~np.isin(rows, gone))
        left = rows[kept] - (np.searchsorted(gone, rows[kept]) if self.moves else 0)
        return write_keys(files, newest.version + 1, [keys[index] for index in kept.tolist()], left)


def _deletion(target: Target, rows: NDArray[np.int64], files: Files, encryption: Any) -> _Deletion:
    """Return what goes: chunks of token datasets are written anew here.

    Args:
        target: The dataset.
        rows: Stored rows, ascending.
        files: Notes what is written.
        encryption: What decrypts and encrypts.
    """
    first = first_rows(target.manifest.chunks)
    owner = np.searchsorted(first, rows, side="right") - 1
    gone = {int(number): rows[owner == number] - first[number] for number in np.unique(owner)}
    base, touched = target.manifest, sorted(gone)
    if target.is_tokens:
        rewriter = Rewriter(target, files, encryption, new_job("delete"))
        made = {number: _without(target, rewriter, number, local) for number, local in gone.items()}
        replacing = Replacing(
            base=base, touched=touched, made_for=lambda chunk: chunk, replace=lambda number, _chunk, _version: made[number]
        )
        return _Deletion(gone=gone, replacing=replacing, moves=True)

    def marked(number: int, chunk: Chunk, version: int) -> list[Chunk]:
        every = np.union1d(deleted_of(target, chunk), gone[number])
        data = deletes.to_bytes(every)
        name = files.write(deletes.name_of(version, chunk.digest, data), data)
        return [dataclasses.replace(chunk, deleted=Deleted(name, len(every)))]

    replacing = Replacing(base=base, touched=touched, made_for=lambda chunk: (chunk.digest, chunk.deleted), replace=marked)
    return _Deletion(gone=gone, replacing=replacing, moves=False)


def _without(target: Target, rewriter: Rewriter, number: int, gone: NDArray[np.int64]) -> list[Chunk]:
    def left() -> Any:
        for first, columns in rewriter.blocks_of(number):
            kept = np.setdiff1d(np.arange(columns[0].rows), gone - first)
            yield _taken(columns, kept)

    chunk = rewriter.write(number, left(), target.manifest.schema)
    return [] if chunk is None else [chunk]


def _taken(columns: list[Column], rows: NDArray[np.int64]) -> list[Column]:
    return columns if len(rows) == columns[0].rows else [taken(column, rows) for column in columns]
