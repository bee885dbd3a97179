"""`optimize`: raw inputs become a dataset, in a job that can be killed at any time and goes on when it is run again."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyden.core.arguments import whole
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.storage import open_storage
from leyden.data.config import Dir, ParquetLoader, PyTreeLoader, TokensLoader
from leyden.data.format.compress import Compression
from leyden.data.format.filling import FillSettings
from leyden.data.format.leaves import LeafRules
from leyden.data.format.versions import find_manifest, open_manifest
from leyden.data.write.arguments import (
    check_encryption,
    check_job,
    check_reader,
    checked_flags,
    checked_functions,
    checked_weights,
    output_of,
    refuse_machines,
    some_bytes,
    warn_without_effect,
)
from leyden.data.write.described import describe
from leyden.data.write.engines.choose import engine_named
from leyden.data.write.engines.ranks import drivers_of
from leyden.data.write.engines.ray import RayEngine
from leyden.data.write.fetching import checked_transfers, fetching_of, options_of
from leyden.data.write.finalise import Report
from leyden.data.write.job import DatasetJob
from leyden.data.write.layouts import NativeLayout, layout_name
from leyden.data.write.litdata_layout import LitdataLayout, litdata_settings
from leyden.data.write.readers import identity_of
from leyden.data.write.running import Running
from leyden.data.write.streams import Grouping, InputStream, job_inputs
from leyden.data.write.unit import Task

_CHUNK_BYTES = "64MB"


def optimize(
    fn: Callable[..., Any],
    inputs: Any = None,
    output_dir: "str | Dir" = "optimized_data",
    queue: Any = None,
    input_dir: "str | Dir | None" = None,
    weights: Sequence[float] | None = None,
    chunk_size: int | None = None,
    chunk_bytes: int | str | None = None,
    align_chunking: bool = False,
    compression: str | None = None,
    compression_level: str | None = None,
    compression_batch_size: int | None = None,
    encryption: Any = None,
    num_workers: int | None = None,
    fast_dev_run: bool | int = False,
    num_nodes: int | None = None,
    machine: Any = None,
    num_downloaders: int | None = None,
    num_uploaders: int | None = None,
    reorder_files: bool = True,
    reader: Any = None,
    batch_size: int | None = None,
    mode: str | None = None,
    use_checkpoint: bool = False,
    item_loader: Any = None,
    start_method: str | None = None,
    optimize_dns: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    keep_data_ordered: bool | None = None,
    verbose: bool = True,
    broadcast_paths: bool = False,
    key_fn: Callable[[Any], str | int] | None = None,
    *,
    layout: str | None = None,
    engine: "str | RayEngine" = "auto",
    on_error: str = "raise",
    retries: int = 2,
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    block_bytes: int | str = "2MiB",
    block_rows: int = 4096,
    resume: bool = True,
    fsync: bool = True,
    allow_pickle: bool = False,
    progress: "bool | Callable[[int, int, int, int], None] | None" = None,
) -> Report:
    """Make a dataset of what a function returns for each input.

    The same call, run again, goes on where it was killed, or returns the report of the version that it has made. Bytes are the
    same for any number of workers.

    Args:
        fn: Makes a sample of an input; a generator makes several; `None` leaves an input out.
        inputs: A sequence, or anything that can be iterated.
        output_dir: A folder or URL.
        queue: Gives inputs, ended by one `ALL_DONE`, in place of `inputs`.
        input_dir: A URL: strings of inputs below it are fetched, and `fn` gets local paths. By default so are URLs of object
            stores, if the first input holds one; of an iterator, only with `input_dir`.
        weights: What each input costs.
        chunk_size: The most rows of a chunk; tokens with `TokensLoader`.
        chunk_bytes: The most bytes of a chunk; `"64MB"` if neither is given.
        align_chunking: Needs `chunk_size`.
        compression: `"zstd"`, `"zstd:N"`, `"lz4"`, `"auto"`.
        compression_level: In LitData's layout `"batch"`, `"sample"` or `"chunk"`; ours compresses blocks.
        compression_batch_size: Samples of a batch, in LitData's layout.
        encryption: `AesGcm(…)`, or an `Encryption`.
        num_workers: Worker processes; all usable cores by default, 0: in this process.
        fast_dev_run: Only the first 10 inputs, or that many.
        num_nodes: Refused; start the script several times.
        machine: Refused.
        num_downloaders: Downloads in flight, in each process; 8 by default.
        num_uploaders: Uploads in flight, in each process; 8 by default.
        reorder_files: Without effect: rows are in input order.
        reader: Makes of an input what `fn` gets.
        batch_size: Groups inputs into lists.
        mode: `"append"` or `"overwrite"` make a new version of a dataset that is there.
        use_checkpoint: Without effect: every run can be resumed.
        item_loader: `TokensLoader()` for a token dataset.
        start_method: `forkserver`, `spawn` or `fork`.
        optimize_dns: Without effect.
        storage_options: For the output's storage.
        keep_data_ordered: Rows are always in order.
        verbose: Whether a line shows the progress, and another one says what was left out.
        broadcast_paths: Without effect.
        key_fn: Makes a row's key of its sample.
        layout: `"leyden"` or `"litdata"`; by default that of the dataset, of `LEYDEN_DATA_LAYOUT`, or ours.
        engine: `"auto"`, `"local"`, `"ranks"`, `"ray"` or `RayEngine(num_actors)`.
        on_error: `"raise"`, `"skip"` or `"quarantine"` for an input that fails.
        retries: How often an input may end its worker before it counts as failed.
        timeout: Seconds an input may take.
        memory_limit: Bytes a worker may hold.
        block_bytes: Of a block, before compression.
        block_rows: The most rows of a block.
        resume: False starts anew.
        fsync: Whether chunks are on the disk before a unit counts as done.
        allow_pickle: Whether objects of no known kind are pickled.
        progress: `None` or True: a line on a terminal; False: none; a function is called with inputs done, rows, bytes and failures.

    Returns:
        What was done.

    Raises:
        ConfigError: An argument is not accepted.
        DatasetExistsError: There is a dataset, and no `mode`.
        UnitFailedError: An input failed, and `on_error` is `"raise"`.

    Example:
        >>> import tempfile
        >>> optimize(float, inputs=[1, 2, 3], output_dir=tempfile.mkdtemp(), num_workers=0).num_rows
        3
    """
    start = time.monotonic()
    check_job(on_error=on_error, start_method=start_method, progress=progress)
    checked_flags(align_chunking=align_chunking, verbose=verbose, resume=resume, fsync=fsync, allow_pickle=allow_pickle)
    checked_functions(fn=fn, key_fn=key_fn)
    check_reader(reader)
    check_encryption(encryption)
    do_units = engine_named(engine)
    _check_mode(mode)
    refuse_machines(num_nodes, machine)
    warn_without_effect(optimize_dns=optimize_dns, broadcast_paths=broadcast_paths)
    _check_alignment(align_chunking, chunk_size, keep_data_ordered)
    is_alone = drivers_of(engine) == 1
    output = output_of(output_dir, is_alone=is_alone)
    weights = checked_weights(weights, fast_dev_run)
    grouping = Grouping(reader=reader, batch_size=batch_size, fast_dev_run=fast_dev_run, weights=weights)
    found = job_inputs(inputs, queue, grouping, may_stream=is_alone and engine in ("auto", "local", "ranks"))
    first = None if isinstance(found, InputStream) or reader is not None else found[0]
    fetching = fetching_of(input_dir, first, storage_options, num_downloaders)
    options = options_of(output, storage_options, fetching)
    storage = open_storage(output, options)
    filling = _filling(chunk_size, chunk_bytes, compression, item_loader, block_bytes, block_rows)
    litdata = None
    if layout_name(storage, layout, mode) == "litdata":
        if key_fn is not None:
            raise ConfigError("key_fn=…: LitData's layout has no place for keys. Leave it out, or write our own layout.")
        litdata = litdata_settings(filling, compression_level, compression_batch_size, encryption, allow_pickle=allow_pickle)
    else:
        warn_without_effect(compression_level=compression_level, compression_batch_size=compression_batch_size)
    task = Task(
        job="", function=fn, output=output, options=options, on_error=on_error, encryption=encryption, reader=reader,
        settings=filling if litdata is None else dataclasses.replace(filling, compression=None), rules=LeafRules(allow_pickle=allow_pickle),
        durable=fsync, key_function=key_fn, litdata=litdata, fetching=fetching,
        uploads=checked_transfers("num_uploaders", num_uploaders),
    )  # fmt: skip
    running = Running(
        num_workers=num_workers,
        start_method=start_method,
        retries=retries,
        timeout=timeout,
        memory_limit=memory_limit,
        progress=False if progress is None and not verbose else progress,
    )
    job = DatasetJob(
        layout=NativeLayout(storage) if litdata is None else LitdataLayout(storage),
        task=task,
        inputs=found,
        weights=weights,
        mode=mode,
        arguments=_that_change_bytes(task, weights),
        running=running,
        do_units=do_units,
        is_alone=is_alone,
        resume=resume,
    )
    report = job.run()._replace(seconds=time.monotonic() - start)
    if verbose and report.skipped + report.quarantined:
        warnings.warn(f"{report.skipped + report.quarantined} inputs failed and were left out of {output}.", UserWarning, stacklevel=2)
    return report


def complete_dataset(output_dir: "str | Dir", storage_options: Mapping[str, Any] | None = None) -> None:
    """Check that a dataset is complete: there is nothing to merge, since a job commits as a whole.

    Raises:
        NotFoundError: There is no dataset.
    """
    open_manifest(open_storage(output_of(output_dir, is_alone=True), storage_options))


def is_complete_dataset(output_dir: "str | Dir", storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return whether there is a dataset, which is always complete.

    Example:
        >>> import tempfile
        >>> is_complete_dataset(tempfile.mkdtemp())
        False
    """
    return find_manifest(open_storage(output_of(output_dir, is_alone=True), storage_options)) is not None


def _check_mode(mode: Any) -> None:
    if mode not in (None, "append", "overwrite"):
        raise ConfigError(f"The provided `mode` should be either `append` or `overwrite`, not {mode!r}.")


def _that_change_bytes(task: Task, weights: list[float] | None) -> dict[str, Any]:
    """Return the arguments that change what is written, beside the function and the inputs."""
    litdata = task.litdata
    return {
        "settings": dataclasses.asdict(task.settings),
        "encryption": None if task.encryption is None else type(task.encryption).__name__,
        "reader": identity_of(task.reader),
        "weights": weights,
        "key_fn": None if task.key_function is None else describe(task.key_function),
        "on_error": task.on_error,
        "allow_pickle": task.rules.allow_pickle,
        "litdata": None if litdata is None else dataclasses.asdict(dataclasses.replace(litdata, encryption=None)),
    }


def _check_alignment(align_chunking: bool, chunk_size: int | None, keep_data_ordered: bool | None) -> None:
    if align_chunking and chunk_size is None:
        raise ConfigError("chunk_size needs to be defined for align_chunking=True.")
    if align_chunking and keep_data_ordered is False:
        raise ConfigError("align_chunking requires keep_data_ordered=True.")


def _filling(
    chunk_size: int | None, chunk_bytes: Any, compression: str | None, loader: Any, block_bytes: Any, block_rows: int
) -> FillSettings:
    loader = loader() if isinstance(loader, type) else loader
    if isinstance(loader, ParquetLoader):
        raise ConfigError("item_loader=ParquetLoader() reads Parquet files; leave it out to write rows.")
    if loader is not None and not isinstance(loader, TokensLoader | PyTreeLoader):
        raise ConfigTypeError(f"item_loader={loader!r} is not accepted: it takes TokensLoader() for tokens, or None for rows.")
    Compression(compression)
    if chunk_bytes is None and chunk_size is None:
        chunk_bytes = _CHUNK_BYTES
    return FillSettings(
        block_bytes=some_bytes("block_bytes", block_bytes),
        block_rows=whole("block_rows", block_rows, 1),
        chunk_bytes=None if chunk_bytes is None else some_bytes("chunk_bytes", chunk_bytes),
        chunk_size=None if chunk_size is None else whole("chunk_size", chunk_size, 1),
        compression=compression,
        token_dtype=loader.store_dtype if isinstance(loader, TokensLoader) else None,
    )
