"""`build_keys_index`: keys for the rows of a dataset that was written without them, or with others."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, ConflictError
from leyden.data.format.keys import key_bytes
from leyden.data.format.manifest import Manifest
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.subset import Runs
from leyden.data.write.arguments import output_of, warn_without_effect
from leyden.data.write.changes.committing import Files, commit_change, first_rows, write_keys
from leyden.data.write.changes.deleting import deleted_in
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.scanning import scanned
from leyden.data.write.changes.target import Place, Target, next_of, open_target

_ROWS_AT_ONCE = 1024


def build_keys_index(  # noqa: PLR0913 - the documented signature
    input_dir: Place,
    key_fn: Callable[[Any], str | int],
    *,
    output_dir: Place | None = None,
    overwrite: bool = False,
    verbose: bool = True,
    num_shards: int = 1,
    columns: Sequence[str] | None = None,
    encryption: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> DatasetVersion:
    """Give every row of a finished dataset a key, so that `dataset["key"]` and `dataset_update` find it: commit a version with them.

    Rows that are appended meanwhile get theirs too. Later appends need `optimize(…, mode="append", key_fn=…)`.

    Args:
        input_dir: A folder or URL.
        key_fn: Returns the key of a sample, a `str` or an `int`.
        output_dir: Must be `input_dir`, if it is given: keys are part of the version.
        overwrite: Whether keys that are there already are replaced.
        verbose: Without effect: nothing is shown.
        num_shards: Without effect: the index is one file.
        columns: Which leaves `key_fn` gets, by name: reading less is faster.
        encryption: What decrypts the data.
        storage_options: Of the storage.

    Returns:
        The new version.

    Raises:
        NotFoundError: There is no dataset.
        ConflictError: It has keys, and `overwrite` does not say that others shall take their place.
        ConfigError: Two rows have one key, or a key is neither a `str` nor an `int`.

    Example:
        >>> import tempfile
        >>> from leyden.data import StreamingDataset, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(str, ["a", "b", "c"], folder, num_workers=0)
        >>> build_keys_index(folder, str.upper).operation
        'keys'
        >>> StreamingDataset(folder)["B"]
        'b'
    """
    del verbose
    warn_without_effect(num_shards=num_shards != 1)
    target = open_target(input_dir, storage_options)
    if output_dir is not None and output_of(output_dir, is_alone=True) != target.url:
        raise ConfigError(f"output_dir={output_dir!r} is another place than the dataset: keys are part of a version. Leave it out.")
    _check_free(target.manifest, target.url, overwrite=overwrite)
    keys = _Keys(key_fn, columns, encryption)
    keys.of(target)  # before the first attempt, which is then short
    files = Files(target.storage)

    def make(newest: Manifest) -> Manifest:
        _check_free(newest, target.url, overwrite=overwrite)
        found, rows = keys.of(dataclasses.replace(target, manifest=newest))
        return next_of(newest, "keys", {"rows": len(found)}, keys=write_keys(files, newest.version + 1, found, rows))

    return facts_of(commit_change(target, files, make))


def _check_free(manifest: Manifest, url: str, *, overwrite: bool) -> None:
    if manifest.keys is not None and not overwrite:
        raise ConflictError(f"{url} has keys of {manifest.keys['rows']:,} rows already. Pass overwrite=True to replace them.")


@final
class _Keys:
    """The keys of the rows of each chunk, made once.

    Args:
        key_fn: The user's.
        columns: Which leaves it gets.
        encryption: What decrypts.
    """

    def __init__(self, key_fn: Callable[[Any], str | int], columns: Sequence[str] | None, encryption: Any) -> None:
        self._key_fn, self._columns, self._encryption = key_fn, columns, encryption
        self._made: dict[Any, list[str | int]] = {}

    def of(self, target: Target) -> tuple[list[str | int], NDArray[np.int64]]:
        """Return the keys of all rows of a version, and their stored rows.

        Raises:
            ConfigError: Two rows have one key, or a key is of another type.
        """
        gone, chunks = deleted_in(target), target.manifest.chunks
        ends = first_rows(chunks) + np.array([chunk.rows for chunk in chunks], np.int64)
        if gone is not None:
            ends = ends - np.searchsorted(gone, ends)
        found, start = list[str | int](), 0
        with scanned(target, columns=self._columns, encryption=self._encryption) as dataset:
            for chunk, stop in zip(chunks, ends.tolist(), strict=True):
                known = (chunk.name, chunk.deleted)
                if known not in self._made:
                    self._made[known] = self._keys_between(dataset, start, stop)
                found += self._made[known]
                start = stop
        _check_unique(found)
        rows = Runs.all_of(target.manifest.num_stored_rows, gone).at(np.arange(len(found)))[0] if found else np.zeros(0, np.int64)
        return found, rows

    def _keys_between(self, dataset: StreamingDataset, start: int, stop: int) -> list[str | int]:
        borders = [*range(start, stop, _ROWS_AT_ONCE), stop]
        return [self._key_fn(sample) for a, b in itertools.pairwise(borders) for sample in dataset[a:b]]


def _check_unique(keys: Sequence[str | int]) -> None:
    seen: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        other = seen.setdefault(key_bytes(key), row)
        if other != row:
            raise ConfigError(f"rows {other} and {row} both have the key {key!r}. Keys must differ: change key_fn, or delete one of them.")
