"""`convert`: a dataset of any format, written in another, in a job that can be killed and goes on."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from leyden.core.arguments import whole
from leyden.core.errors import ConfigError, ConflictError, closest, listed
from leyden.core.storage import Storage
from leyden.data.codecs.serializer import Serializer
from leyden.data.format.chunk import ChunkEntry
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.versions import INDEX, commit, find_manifest, repair_index
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.interop.litdata_write import LitdataSettings
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.subset import Runs
from leyden.data.tools.convert_parts import FACTS, WRITERS, PartWriter, cut_parts, native_schema, rows_within
from leyden.data.tools.opening import Access, open_any
from leyden.data.write.arguments import check_job, refuse_file, some_bytes
from leyden.data.write.mapping import FilesJob, files_task
from leyden.data.write.running import Running, do_units

Target = Literal["leyden", "litdata", "parquet", "arrow"]


class Converted(NamedTuple):
    """What `convert` wrote.

    Args:
        url: Where.
        num_rows: How many rows.
        files: The files, in order.
        num_bytes: Their bytes.
    """

    url: str
    num_rows: int
    files: list[str]
    num_bytes: int


def convert(  # noqa: PLR0913 - the settings of three formats, flat as a command line gives them
    src: "str | StreamingDataset",
    dst: str,
    to: Target = "leyden",
    *,
    storage_options: Mapping[str, Any] | None = None,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    chunk_bytes: int | str = "64MB",
    chunk_size: int | None = None,
    compression: str | None = None,
    num_workers: int | None = 0,
    start_method: str | None = None,
    resume: bool = True,
    progress: "bool | Callable[[int, int, int, int], None] | None" = None,
) -> Converted:
    """Write the rows of a dataset in another format, in their order.

    The files come first and what makes them a dataset comes last, so that an unfinished conversion is not taken for a dataset.
    The same call, run again, goes on where it was killed, or returns what it has made.

    Args:
        src: A dataset of ours, LitData's or MosaicML's, Parquet files or tar shards; or a `StreamingDataset`, such as a part of
            `train_test_split`, whose samples are written as they are stored, without its transform.
        dst: A folder or URL that is empty.
        to: `"leyden"`, `"litdata"`, `"parquet"` or `"arrow"` (IPC files).
        storage_options: Of both places.
        encryption: What decrypts the source.
        serializers: The user's own kinds of leaves in the source.
        chunk_bytes: How many bytes of the source's blocks go into one file, and the most of a chunk, unless a single block has more.
        chunk_size: The most rows of a chunk, in LitData's layout.
        compression: `"zstd"` or `"zstd:N"`, in our own layout and LitData's.
        num_workers: Worker processes; `None`: all usable cores, 0: in this process.
        start_method: `forkserver`, `spawn` or `fork`.
        resume: False starts anew.
        progress: `None` or True: a line on a terminal; False: none; a function is called with parts done, rows, bytes and failures.

    Raises:
        NotFoundError: There is no dataset at `src`.
        ConflictError: There is something at `dst`.
        ConfigError: `to` is none of these, or a leaf cannot be written so.
    """
    if to not in WRITERS:
        raise ConfigError(f"to={to!r} is not accepted: it takes {listed(WRITERS)}.{closest(to, WRITERS)}")
    refuse_file(dst)
    check_job(on_error="raise", start_method=start_method, progress=progress)
    rows = None if chunk_size is None else whole("chunk_size", chunk_size, 1)
    settings = LitdataSettings(chunk_bytes=some_bytes("chunk_bytes", chunk_bytes), chunk_size=rows, compression=compression)
    if isinstance(src, StreamingDataset):
        url, access, kept = _chosen(src)
    else:
        url, kept = src, None
        access = Access(storage_options=storage_options or {}, encryption=encryption, serializers=serializers or {})
    writer = PartWriter(url, open_any(url, access).digest, access, to, settings, kept)
    writer.check()
    parts = cut_parts(_kept_bytes(writer), settings.chunk_bytes or 1)
    running = Running(num_workers=num_workers, start_method=start_method, retries=2, timeout=None, memory_limit=None, progress=progress)
    job = FilesJob(
        task=files_task(writer, dst, storage_options or {}),
        inputs=[list(part) for part in parts],
        running=running,
        do_units=do_units,
        operation="convert",
    )
    storage = job.journal.storage
    if not job.journal.exists() and next(iter(storage.list()), None) is not None:
        raise ConflictError(f"{dst} is not empty. Convert into a new folder: nothing is ever overwritten.")
    job.run(resume=resume)
    _complete(storage, writer, to)
    files = {entry.key: entry.size for entry in storage.list() if not entry.key.startswith("_leyden/")}
    return Converted(dst, writer.kept.num_rows, sorted(files, key=lambda name: (name == INDEX, name)), sum(files.values()))


def _chosen(dataset: StreamingDataset) -> tuple[str, Access, Runs]:
    """Return where a dataset lies, how it is opened, and which of its rows are meant."""
    if dataset.reading.windows is not None:
        raise ConfigError("src= hands out windows of tokens, which are not what is stored. Open it without item_loader=TokensLoader(…).")
    kept, options = dataset.selection, dataset.source_options
    if kept.copy.any() or (np.diff(kept.first) <= 0).any():
        raise ConfigError(
            "src= has its samples in another order than they are stored in, or some of them twice. Write it with "
            "optimize(…, inputs=StreamingDataLoader(…))."
        )
    access = Access(
        storage_options=options.storage_options, encryption=options.encryption, serializers=options.serializers, version=dataset.version
    )
    return options.url, access, kept


def _kept_bytes(writer: PartWriter) -> list[int]:
    """Return how many bytes each block's kept rows have, about."""
    table = writer.source.table
    rows = [len(rows_within(writer.kept, first, count)) for first, count in zip(table.first_row.tolist(), table.rows.tolist(), strict=True)]
    return (table.stored_bytes * np.array(rows, np.int64) // np.maximum(table.rows, 1)).astype(np.int64).tolist()


def _complete(storage: Storage, writer: PartWriter, to: Target) -> None:
    """Make a dataset of the files, unless that is done; what was noted for it goes."""
    notes = sorted(entry.key for entry in storage.list(FACTS))
    if to == "leyden" and find_manifest(storage) is not None:
        repair_index(storage)  # in case that one was killed between the two files of a commit
    elif to in {"leyden", "litdata"} and not storage.exists(INDEX):
        entries = [entry for key in notes for entry in json.loads(storage.read(key))]
        if to == "litdata":
            storage.write(INDEX, writer.litdata_writer().index(entries))
        else:
            manifest = _manifest(writer, [Chunk.of(ChunkEntry(**entry)) for entry in entries])
            commit(storage, lambda _: manifest, must_be_new=True)
    for key in notes:
        storage.delete(key)


def _manifest(writer: PartWriter, chunks: list[Chunk]) -> Manifest:
    source, settings = writer.source, writer.settings
    kept = {"chunk_bytes": settings.chunk_bytes, "chunk_size": None, "compression": settings.compression}
    lineage = {"parents": [{"version": source.version, "digest": source.digest}]}
    return Manifest(version=1, schema=native_schema(source), chunks=tuple(chunks), settings=kept, operation="convert", lineage=lineage)
