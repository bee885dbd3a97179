"""`StreamingDataset`: a dataset as one sees it: samples by number, or all of them in an order that depends on data and seed.

The class is a facade: arguments go to frozen options, the data to a `Reading`, the order to a `Stream`, iteration to a
`Share`. What it keeps itself is where this process stands: epoch and position.
"""

import contextlib
import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leyden.core.arguments import one_of
from leyden.core.errors import ConfigError, ConfigTypeError, NotFoundError, StateError
from leyden.core.lazy import Later
from leyden.data.codecs.serializer import Serializer
from leyden.data.config import Dir, ItemLoader, TokensLoader
from leyden.data.placement import Place
from leyden.data.read.columns import BINARY, Dense, Objects
from leyden.data.read.cursor import Cursor
from leyden.data.read.opening import Opened, open_source
from leyden.data.read.options import SourceOptions, order_options, read_options, report_replaced, source_options
from leyden.data.read.orders import make_order
from leyden.data.read.reading import Reading
from leyden.data.read.row import Samples, compile_tree, numpy_array, torch_tensor
from leyden.data.read.states import Position, checked_state, order_changes, recognised
from leyden.data.read.stream import DatasetStream, Rows, SequentialOrder
from leyden.data.read.streamed import Streamed
from leyden.data.read.subset import Runs, choose_unit_blocks, subsampled, unit_borders
from leyden.data.read.tokens import TokenWindows, window_schema
from leyden.data.read.transform import Transform, keys_of

_TOKEN_UNIT_BLOCKS = 8
_arrow: Any = Later("leyden.data.interop.arrow_dataset")
Indices = Sequence[int] | NDArray[np.int64] | slice


class StreamingDataset(Streamed):  # noqa: SIZE002, SIZE003 - the documented interface, arguments and all
    """Samples of a folder or bucket, by number or in order.

    Args:
        input_dir: A folder, a URL, `Dir(path, url)` or a pattern of Parquet files; the format is found by looking.
        cache_dir: Where blocks of a remote dataset are kept, shared by all processes of the node.
        item_loader: `TokensLoader(block_size)` reads windows of a token dataset, `ParquetLoader(columns)` Parquet files.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether the last samples that do not fill a step of all ranks are left out; by default with several ranks.
        seed: Of the order, of transforms and of draws.
        serializers: Name to `Serializer`, for leaves of your own.
        max_cache_size: Of the cache: bytes, `"100GB"`, a fraction of the free disk, or 0 for memory alone.
        subsample: 0.1 is a tenth of the rows, 2.5 every row twice and half of them once more.
        encryption: What decrypts the data.
        storage_options: Credentials and endpoint: obstore's names or boto3's.
        session_options: `profile_name` and `region_name`.
        max_pre_download: How far to look ahead, in units of 64 MB.
        index_path: The index of Parquet files, if it lies elsewhere.
        force_override_state_dict: Whether arguments given here win over those in a loaded state.
        transform: A function, or a list of them, of `(sample)` or `(sample, rng)`.
        num_canonical_nodes: Without effect; `lanes` replaces it.
        batch_decode: Without effect: batches are always decoded together.
        item_shuffle_window: Without effect; `window` replaces it.
        window_direct_io: Not supported.
        version: Which version; the newest by default.
        columns: Which leaves are read, by name; all by default.
        lanes: From how many places of the shuffled data samples come in turn; a power of two.
        window: Over how many units of a lane rows are mixed.
        order: `"sequential"`, `"lanes"`, or by `shuffle`.
        batch_transform: A function of columnar batches, `(batch)` or `(batch, rng)`, for `StreamingDataLoader`.
        trust: Whether pickled leaves may be loaded; they run code.
        verify: When hashes are checked: `"first"` time a process touches data, `"always"`, `"never"`.
        decode: Whether media are decoded; or a dict by leaf.
        output: Whether arrays become torch tensors or numpy arrays.
        batch_size: Under torch's own `DataLoader`: its batch size, so that batches equal those of `StreamingDataLoader`.
        rank: Of this process; found by default.
        world_size: How many ranks there are; found by default.
        connections: Requests at once.
        prefetch_bytes: How far to look ahead, in bytes.
        ram_bytes: How much decoded data is held.

    Raises:
        NotFoundError: There is no dataset.
        ConfigError: An argument is not accepted.

    Example:
        ```python
        dataset = StreamingDataset("s3://bucket/train", shuffle=True)
        sample, samples = dataset[0], dataset[10:20]
        for sample in dataset: ...
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        input_dir: "str | os.PathLike[str] | Dir",
        cache_dir: "str | os.PathLike[str] | Dir | None" = None,
        item_loader: ItemLoader | None = None,
        shuffle: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        drop_last: bool | None = None,  # noqa: FBT001 - the documented signature
        seed: int = 42,
        serializers: Mapping[str, Serializer] | None = None,
        max_cache_size: "int | float | str | None" = None,
        subsample: float = 1.0,
        encryption: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, Any] | None = None,
        max_pre_download: int = 2,
        index_path: str | None = None,
        force_override_state_dict: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        transform: Any = None,
        num_canonical_nodes: int | None = None,
        batch_decode: Any = "auto",
        item_shuffle_window: int | None = None,
        window_direct_io: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        lanes: int = 64,
        window: int = 4,
        order: Literal["auto", "sequential", "lanes"] = "auto",
        batch_transform: Callable[..., Any] | None = None,
        trust: bool = False,
        verify: Literal["first", "always", "never"] = "first",
        decode: "bool | Mapping[str, bool]" = True,
        output: Literal["torch", "numpy"] = "torch",
        batch_size: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        connections: int = 16,
        prefetch_bytes: "int | str | None" = None,
        ram_bytes: "int | str" = "1GiB",
    ) -> None:
        given = dict(locals())
        report_replaced(
            num_canonical_nodes=num_canonical_nodes,
            batch_decode=batch_decode,
            item_shuffle_window=item_shuffle_window,
            window_direct_io=window_direct_io,
        )
        self._order_options = order_options(seed=seed, shuffle=shuffle, order=order, lanes=lanes, window=window)
        self._source_options = source_options(input_dir, item_loader, columns, given)
        self._options = read_options(given)
        self.batch_transform = None if batch_transform is None else Transform(batch_transform, seed, "batch_transform")
        self._transform = self._chosen_transform(transform)
        self._open(open_source(self._source_options))
        self._begin_at_the_start()

    def _open(self, opened: Opened) -> None:
        self._find_key = opened.find_key
        self._reading = self._at_work(opened)
        seed = self._order_options.seed if self._order_options.shuffle else None
        rows = self._reading.windows.num_rows if self._reading.windows else int(opened.source.table.rows.sum())
        everything = Runs.all_of(rows, None if self._reading.windows else opened.deleted)
        factor = self._options.subsample
        self._runs = everything if factor == 1 else subsampled(everything, factor, self.borders, seed)
        self._is_whole = True

    def _at_work(self, opened: Opened) -> Reading:
        options, loader, source = self._options, self._source_options.item_loader, opened.source
        windows = None
        tree, leaves = source.schema.tree, source.schema.leaves
        if isinstance(loader, TokensLoader) and not opened.is_foreign:
            if loader.block_size is None:
                raise ConfigError("TokensLoader() needs block_size=… for reading: TokensLoader(block_size=2049).")
            windows = TokenWindows(source.table, loader.block_size, has_documents=loader.document_ids)
            tree, leaves = window_schema(windows, leaves[0].dtype or "int64")
        samples = Samples(
            tree,
            leaves,
            columns=self._source_options.columns,
            output=options.output,
            decode=options.decode,
            serializers={**opened.serializers, **self._source_options.serializers},
            trust=self._source_options.trust,
        )
        return Reading(source, samples, windows, ram_bytes=options.ram_bytes, connections=options.connections)

    def _chosen_transform(self, given: Any) -> Transform | None:
        chosen = given if given is not None else getattr(self, "transform", None)  # a method of a subclass
        return None if chosen is None else Transform(chosen, self._order_options.seed)

    @property
    def schema(self) -> Any:
        """The tree of a sample and its leaves."""
        return self._reading.source.schema

    @property
    def source_options(self) -> SourceOptions:
        """Where its files lie, and how they are opened."""
        return self._source_options

    @property
    def version(self) -> int:
        """Which version is read."""
        return self._reading.source.version

    @property
    def digest(self) -> str:
        """What two equal versions have in common."""
        return self._reading.source.digest

    @property
    def num_rows(self) -> int:
        """How many samples there are, for all ranks together."""
        return self._runs.num_rows

    @property
    def unit_blocks(self) -> int:
        """How many blocks are shuffled as one."""
        return choose_unit_blocks(self._reading.table, _TOKEN_UNIT_BLOCKS if self._reading.windows else 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source_options.url!r}, version={self.version}, num_rows={self.num_rows})"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.get_by_key(index)
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            return self._samples(self._checked([int(index)]))[0]
        return self._samples(self._checked(index))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Refuse what only torch's fetcher of map-style datasets calls."""
        raise StateError("this dataset was made before torch was imported. Import torch before creating it, or use StreamingDataLoader.")

    def get_by_key(self, key: "str | int") -> Any:
        """Return the sample of a key.

        Raises:
            NotFoundError: The dataset has no keys, or not this one.
        """
        if self._find_key is None:
            raise NotFoundError(f"{self._source_options.url} has no keys. Write it with optimize(key_fn=…), or use build_keys_index.")
        row = self._find_key(key)
        return self._read(Rows.of_one(np.array([row]), np.zeros(1, np.int64), np.zeros(1, np.int32)))[0]

    def take(self, indices: Indices) -> Any:
        """Return samples as one tree of arrays: stacked where shapes are equal, else lists. No transform is applied.

        Args:
            indices: Numbers of samples, or a slice.
        """
        rows = self._checked(indices)
        stream = self._by_number()
        chosen = Rows.of_one(*self._runs.at(rows), np.zeros(len(rows), np.int32))
        stream.ready(stream.needs(chosen))
        tray = stream.gather(chosen)
        values = [self._batch(column.slice(0, len(rows))) for column in tray.columns]
        return compile_tree(tray.samples.tree, {leaf.name: place for place, leaf in enumerate(tray.samples.leaves)}, self._options.output)(
            values
        )

    def _batch(self, column: Any) -> Any:
        if isinstance(column, Objects):
            return column.values
        if column.dtype == BINARY:
            return column.views(0, column.rows)
        convert = torch_tensor if self._options.output == "torch" else numpy_array
        if isinstance(column, Dense) and column.nulls is None:
            return convert(column.values, column.dtype)
        return [None if (row := column.row(index)) is None else convert(row, column.dtype) for index in range(column.rows)]

    def to_arrow(self) -> Any:
        """Return all samples as a table of pyarrow, in the order of their numbers; what lies plain in a local file is not copied.

        Raises:
            MissingDependencyError: pyarrow is not installed.
            ConfigError: This dataset hands out windows of tokens, or arrays that Arrow has no type for.
        """
        if self._reading.windows is not None:
            raise ConfigError("to_arrow() gives samples as they were written, and this dataset hands out windows. Leave item_loader out.")
        return _arrow.dataset_table(self._reading, self._runs.cut(self._reading.table.first_row))

    def subset(self, indices: Indices) -> "StreamingDataset":
        """Return a dataset of these samples, in this order.

        Args:
            indices: Numbers of samples, or a slice.
        """
        return self.selected(self._runs.take(self._checked(indices)))

    @property
    def selection(self) -> Runs:
        """Which rows are handed out."""
        return self._runs

    @property
    def borders(self) -> NDArray[np.int64]:
        """The rows at which the units of shuffling begin."""
        return unit_borders(self._reading.table, self.unit_blocks)

    def selected(self, runs: Runs) -> "StreamingDataset":
        """Return a dataset of these rows of the same data, at its first epoch."""
        other = copy.copy(self)
        other._runs, other._cursor, other._is_whole = runs, Cursor(), False
        return other

    @property
    def reading(self) -> Reading:
        """The source at work, for what reads several datasets together."""
        return self._reading

    @property
    def ahead_bytes(self) -> int:
        """How far to look ahead."""
        return self._options.ahead_bytes

    @property
    def row_transform(self) -> Transform | None:
        """What is done with each sample."""
        return self._transform

    @property
    def readings(self) -> Sequence[Reading]:
        """The source at work, alone."""
        return [self._reading]

    @property
    def drop_last(self) -> bool | None:
        """Whether the last positions that fill no step are left out; `None`: with several ranks."""
        return self._options.drop_last

    @property
    def step_size(self) -> int:
        """Samples of a step of this rank, under a bare iteration."""
        return self._options.batch_size or 1

    @property
    def output(self) -> Literal["torch", "numpy"]:
        """What arrays become."""
        return self._options.output

    @property
    def given_place(self) -> Place | None:
        """The share that the arguments say."""
        return self._options.place

    def stream(self, global_batch_size: int = 1) -> DatasetStream:
        """Return the order and the arrays of this dataset, for a loader."""
        del global_batch_size
        order = make_order(self._runs, self._reading.table, self._order_options, self.unit_blocks)
        return DatasetStream(self._reading, order)

    def _by_number(self) -> DatasetStream:
        return DatasetStream(self._reading, SequentialOrder(self._runs))

    def _samples(self, indices: NDArray[np.int64]) -> list[Any]:
        return self._read(Rows.of_one(*self._runs.at(indices), np.zeros(len(indices), np.int32)))

    def _read(self, rows: Rows) -> list[Any]:
        stream = self._by_number()
        stream.ready(stream.needs(rows))
        values = stream.gather(rows).values(0, len(rows))
        if self._transform is None:
            return values
        return self._transform.apply_all(values, keys_of(self._cursor.epoch, rows))

    def _checked(self, indices: Any) -> NDArray[np.int64]:
        if isinstance(indices, slice):
            return np.arange(*indices.indices(self.num_rows))
        found = self._numbers(indices)
        wrong = found[(found < -self.num_rows) | (found >= self.num_rows)]
        if len(wrong):
            raise IndexError(f"index {wrong[0]} is out of range: the dataset has {self.num_rows} samples.")
        return np.where(found < 0, found + self.num_rows, found)

    def _numbers(self, indices: Any) -> NDArray[np.int64]:
        found = np.asarray(indices).reshape(-1)
        if found.dtype == bool:
            if len(found) != self.num_rows:
                raise IndexError(f"a mask of {len(found)} values does not fit: the dataset has {self.num_rows} samples.")
            return np.flatnonzero(found)
        if len(found) and not np.issubdtype(found.dtype, np.integer):
            raise ConfigTypeError(f"index {indices!r:.80} is not accepted: it takes whole numbers, a slice, or a mask of True and False.")
        return found.astype(np.int64)

    def set_shuffle(self, shuffle: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `shuffle`."""
        current = self._order_options
        kind = "auto" if current.kind == "lanes" and current.shuffle else current.kind
        chosen = "auto" if kind == "sequential" else kind
        self._order_options = order_options(seed=current.seed, shuffle=shuffle, order=chosen, lanes=current.lanes, window=current.window)

    def set_drop_last(self, drop_last: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `drop_last`."""
        self._options = replace(self._options, drop_last=drop_last)

    def set_output(self, output: Literal["torch", "numpy"]) -> None:
        """Set `output`."""
        self._options = replace(self._options, output=one_of("output", output, ("torch", "numpy")))
        self._reading = self._reading.with_output(output)

    def set_binary(self, binary: Literal["bytes", "view"]) -> None:
        """Say what becomes of bytes: objects of their own, or memoryviews of what was read."""
        self._reading = self._reading.with_binary(one_of("binary", binary, ("bytes", "view")))

    def set_batch_size(self, batch_size: int) -> None:
        """Set `batch_size`."""
        self._options = replace(self._options, batch_size=batch_size)

    def adopt(self, state: Mapping[str, Any]) -> Position:
        """Check a state, take over the order that it says, and return its position.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """
        self.open_version_of(recognised(state)["dataset"])
        position, changes = checked_state(state, self.identity(), is_forced=self._options.force_override_state)
        self._order_options = replace(self._order_options, **changes)
        return position

    def open_version_of(self, data: Any) -> None:
        """Open the version that a state is of, if the dataset has a newer one since and no version was asked for."""
        if not isinstance(data, Mapping) or not self._is_whole or self._source_options.version is not None:
            return
        version = data.get("version")
        if data.get("digest") == self.digest or version in (None, self.version):
            return
        with contextlib.suppress(NotFoundError):  # whoever compares digests says what is the matter
            opened = open_source(replace(self._source_options, version=version))
            if opened.source.digest == data["digest"]:
                warnings.warn(f"the state is of version {version}: that is read on, and not version {self.version}.", stacklevel=5)
                self._open(opened)

    def adopt_order(self, order: Mapping[str, Any], *, is_forced: bool) -> None:
        """Take over the order that a state of several datasets holds for this one."""
        changes = order_changes(order, self.identity()["order"], is_forced=is_forced or self._options.force_override_state)
        self._order_options = replace(self._order_options, **changes)

    def identity(self) -> dict[str, Any]:
        """Return what a state must agree with."""
        options = self._order_options
        windows = self._reading.windows
        return {
            "order": {
                "seed": options.seed,
                "shuffle": options.shuffle,
                "order": options.kind,
                "lanes": options.lanes,
                "window": options.window,
                "unit_blocks": self.unit_blocks,
            },
            "dataset": {
                "version": self.version,
                "digest": self.digest,
                "selection": self._runs.digest,
                "num_rows": self.num_rows,
                "block_size": windows.block_size if windows else None,
            },
        }
