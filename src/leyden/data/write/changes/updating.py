"""`dataset_update`: other samples in place of some rows, as a new version; row numbers and keys stay."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, NotFoundError
from leyden.data.format import keys as keys_format
from leyden.data.format.builder import smallest_token_dtype
from leyden.data.format.column import LIST, Column
from leyden.data.format.joining import cut, joined
from leyden.data.format.leaves import LeafRules, Serializer
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Leaf, Schema, unify, unify_all
from leyden.data.format.tree import SampleBuilder
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.subset import Runs
from leyden.data.write.changes.committing import Files, Replacing, commit_change, first_rows
from leyden.data.write.changes.deleting import deleted_in
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.rewriting import Rewriter, new_job
from leyden.data.write.changes.scanning import opened_once
from leyden.data.write.changes.target import Place, Target, next_of, open_target, without_files


def dataset_update(
    input_dir: Place,
    *,
    encryption: Any = None,
    serializers: Mapping[str, Serializer] | None = None,
    allow_pickle: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> "DatasetUpdate":
    """Put other samples in place of rows, found by their keys; of a dataset without keys, by their numbers.

    Args:
        input_dir: A folder or URL.
        encryption: What decrypts and encrypts, of an encrypted dataset.
        serializers: The user's own kinds of leaves.
        allow_pickle: Whether objects of no known kind are pickled.
        storage_options: Of the storage.

    Raises:
        NotFoundError: There is no dataset.
        ConfigError: It is encrypted, and no key or another one's was given.

    Example:
        >>> import tempfile
        >>> from leyden.data import StreamingDataset, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(str, ["a", "b", "c"], folder, num_workers=0, key_fn=str)
        >>> with dataset_update(folder) as update:
        ...     update["b"] = update["b"] * 3
        ...     update.commit().version
        2
        >>> StreamingDataset(folder)[:]
        ['a', 'bbb', 'c']
    """
    target = open_target(input_dir, storage_options)
    rules = LeafRules(allow_pickle=allow_pickle, serializers=dict(serializers or {}))
    update = DatasetUpdate(target, rules, encryption)
    Rewriter(target, Files(target.storage), encryption, new_job("update"))  # says now that a key is missing
    return update


class _New(NamedTuple):
    """A row's new sample.

    Args:
        sample: As it was given.
        columns: The same, stored.
        schema: Of it.
    """

    sample: Any
    columns: Sequence[Column]
    schema: Schema


@final
class DatasetUpdate:
    """New samples on their way into a dataset; get one from `dataset_update`.

    Args:
        target: The dataset.
        rules: What may be stored.
        encryption: What decrypts and encrypts.
    """

    def __init__(self, target: Target, rules: LeafRules, encryption: Any) -> None:
        self._rules, self._encryption = rules, encryption
        self._dataset: StreamingDataset | None = None
        self._begin(target)

    def _begin(self, target: Target) -> None:
        self._target = target
        self._schema = without_files(target.manifest.schema)
        self._new: dict[int, _New] = {}
        self._index: keys_format.KeyIndex | None = None
        self._live: Runs | None = None
        if self._dataset is not None:
            self._dataset.close()
        self._dataset = None

    def __enter__(self) -> "DatasetUpdate":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._new and kind is None:
            text = f"{len(self._new)} rows of {self._target.url} were set and not committed: call update.commit()."
            warnings.warn(text, UserWarning, stacklevel=2)
        self._begin(self._target)

    def __len__(self) -> int:
        return len(self._new)

    def __getitem__(self, key: str | int) -> Any:
        """Return the sample that was set, or the one that the dataset holds.

        Raises:
            NotFoundError: There is no such row.
        """
        row = self._row_of(key)
        if row in self._new:
            return self._new[row].sample
        if self._dataset is None:
            trust, serializers = self._rules.allow_pickle, self._rules.serializers
            self._dataset = opened_once(self._target, encryption=self._encryption, trust=trust, serializers=serializers)
        return self._dataset[key] if self._target.manifest.keys is None else self._dataset.get_by_key(key)

    def __setitem__(self, key: str | int, sample: Any) -> None:
        """Put a sample in place of a row when `commit` is called.

        Raises:
            NotFoundError: There is no such row.
            SchemaError: The sample is built unlike the others.
        """
        row = self._row_of(key)
        builder = SampleBuilder(self._rules, "auto" if self._target.is_tokens else None)
        builder.append(sample)
        schema = builder.schema
        unify(self._schema, schema, f"the new sample of {key!r}")
        self._new[row] = _New(sample, builder.finish(), schema)

    def commit(self) -> DatasetVersion:
        """Write the chunks of the changed rows anew, and commit a version that has them.

        Another writer may change other chunks at the same time, or append: both changes land.

        Returns:
            The new version; the old one if nothing was set.

        Raises:
            ConflictError: Another writer changed the same chunks since this update began.
            StorageError: The storage refuses.
        """
        if not self._new:
            return facts_of(self._target.manifest)
        target, files = self._target, Files(self._target.storage)
        schema = unify_all([self._schema, *(new.schema for new in self._new.values())])
        try:
            replacing = self._rewritten(files, schema)
        except BaseException:
            files.keep_only([])
            raise
        about = {"updated_rows": len(self._new), "parents": [{"version": target.manifest.version, "digest": target.manifest.digest}]}

        def make(newest: Manifest) -> Manifest:
            chunks = replacing.apply(newest, target.url)
            return next_of(newest, "update", about, chunks=chunks, schema=unify(newest.schema, schema, "the new samples"))

        manifest = commit_change(target, files, make)
        self._begin(dataclasses.replace(target, manifest=manifest))
        return facts_of(manifest)

    def _rewritten(self, files: Files, schema: Schema) -> Replacing:
        target = self._target
        rows = np.array(sorted(self._new), np.int64)
        first = first_rows(target.manifest.chunks)
        owner = np.searchsorted(first, rows, side="right") - 1
        rewriter = Rewriter(target, files, self._encryption, new_job("update"))
        made = {int(number): self._chunk(rewriter, int(number), rows[owner == number], schema) for number in np.unique(owner)}
        return Replacing(
            base=target.manifest, touched=sorted(made), made_for=lambda chunk: chunk, replace=lambda number, *_: [made[number]]
        )

    def _chunk(self, rewriter: Rewriter, number: int, rows: NDArray[np.int64], schema: Schema) -> Chunk:
        before = self._target.manifest.chunks[number]
        chunk_first = int(first_rows(self._target.manifest.chunks)[number])
        blocks = (
            self._block(columns, chunk_first + first, rows, schema.leaves, is_tokens=before.tokens is not None)
            for first, columns in rewriter.blocks_of(number)
        )
        made = rewriter.write(number, blocks, schema)
        assert made is not None  # noqa: S101 - it has the rows that it had
        return dataclasses.replace(made, deleted=before.deleted)

    def _block(
        self, columns: list[Column], first: int, rows: NDArray[np.int64], leaves: Sequence[Leaf], *, is_tokens: bool
    ) -> list[Column]:
        """Return the columns of a block with the new values of its rows."""
        own = [int(row) for row in rows if first <= row < first + columns[0].rows]
        if not own:
            return columns
        changed = []
        for index, (column, leaf) in enumerate(zip(columns, leaves, strict=True)):
            parts = list(_parts(column, [row - first for row in own], [self._new[row].columns[index] for row in own]))
            changed.append(joined(parts, leaf, _token_dtype(column, parts) if is_tokens else None))
        return changed

    def _row_of(self, key: str | int) -> int:
        """Return the stored row of a key or number."""
        target = self._target
        if target.manifest.keys is not None:
            if self._index is None:
                name = str(target.manifest.keys["name"])
                self._index = keys_format.KeyIndex(target.storage.read(name), name)
            found = self._index.find(key)
            if found is None:
                raise NotFoundError(f"{target.url} has no row of the key {key!r}. Keys are as key_fn gave them: 1 and '1' are two.")
            return found
        count = target.manifest.num_rows
        if not isinstance(key, (int, np.integer)) or isinstance(key, bool):
            raise ConfigError(f"key={key!r}: {target.url} has no keys, so rows are found by number. Use build_keys_index for keys.")
        if not -count <= key < count:
            raise NotFoundError(f"row {key} is not there: version {target.manifest.version} of {target.url} has {count} rows.")
        if self._live is None:
            self._live = Runs.all_of(target.manifest.num_stored_rows, deleted_in(target))
        return int(self._live.at(np.array([key % count]))[0][0])


def _parts(column: Column, places: Sequence[int], new: Sequence[Column]) -> Iterator[Column]:
    """Yield what stands between new rows, and the new rows."""
    start = 0
    for place, value in zip(places, new, strict=True):
        if start < place:
            yield cut(column, start, place)
        yield value
        start = place + 1
    if start < column.rows:
        yield cut(column, start, column.rows)


def _token_dtype(column: Column, parts: Sequence[Column]) -> str:
    """Return the type that holds all tokens: the one that the block has, or the smallest if that is too narrow."""
    filled = [part.values for part in parts if part.kind == LIST and part.values.size]
    low, high = min((int(each.min()) for each in filled), default=0), max((int(each.max()) for each in filled), default=0)
    if column.kind == LIST and np.iinfo(column.values.dtype).min <= low and high <= np.iinfo(column.values.dtype).max:
        return column.dtype
    return smallest_token_dtype(np.array([low, high], np.int64))
