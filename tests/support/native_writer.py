"""Datasets in our format, written with the format's own parts: for tests of reading that need no job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leyden.core.storage import open_storage
from leyden.data.format.block import Packing, pack_block
from leyden.data.format.builder import LeafBuilder
from leyden.data.format.chunk import ChunkWriter, Origin
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.compress import Compression
from leyden.data.format.leaves import LeafRules
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Leaf, Schema
from leyden.data.format.versions import commit


def write_dataset(
    folder: Path,
    samples: Sequence[Any],
    *,
    per_block: int = 10,
    blocks_per_chunk: int = 3,
    codec: str | None = None,
    is_tokens: bool = False,
    ciphers: DatasetCiphers | None = None,
) -> Manifest:
    """Write samples that are flat dicts (or, of a token dataset, arrays) as version 1, or as the next one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"": sample} for sample in samples] if is_tokens else list(samples)
    names = sorted(rows[0], key=str.encode)
    builders = {name: LeafBuilder(name, LeafRules(), "auto" if is_tokens else None) for name in names}
    compression = Compression() if codec is None else Compression(codec)
    for row in rows:  # once through, so that every leaf is known
        for name in names:
            builders[name].append(row[name])
    leaves = [found for name in names if (found := builders[name].leaf) is not None]
    schema = Schema(tree_of(list(rows[0]), leaves, is_tokens=is_tokens))
    for builder in builders.values():
        builder.keep(0)
    chunks = []
    for sequence, start in enumerate(range(0, len(rows), per_block * blocks_per_chunk)):
        origin = Origin("test", "0", sequence)
        cipher, salt, key = ciphers.new_chunk(origin.chunk_id) if ciphers else (None, None, None)
        packing = Packing(compression, cipher=cipher)
        writer = ChunkWriter(folder / f"chunk-{sequence}.tmp", origin, schema, salt=salt, key=key)
        for number in range(blocks_per_chunk):
            part = rows[start + number * per_block : min(start + (number + 1) * per_block, start + per_block * blocks_per_chunk)]
            if not part:
                break
            for row in part:
                for name in names:
                    builders[name].append(row[name])
            columns = [builders[name].finish() for name in names]
            block = pack_block(columns, number=number, chunk_id=origin.chunk_id, first_row=number * per_block, packing=packing)
            writer.add(block, len(part), int(columns[0].values.size) if is_tokens else None)
        chunks.append(Chunk.of(writer.finish(durable=False)))

    def make(newest: Manifest | None) -> Manifest:
        return Manifest((newest.version if newest else 0) + 1, schema, tuple(chunks), {}, cipher=ciphers.entry if ciphers else None)

    return commit(open_storage(folder), make)


def tree_of(keys: list[str], leaves: list[Leaf], *, is_tokens: bool) -> dict[str, Any]:
    by_name = {leaf.name: leaf.to_json() for leaf in leaves}
    return by_name[""] if is_tokens else {"kind": "dict", "keys": keys, "children": [by_name[key] for key in keys]}


def write_tokens(folder: Path, lengths: Sequence[int], **options: Any) -> np.ndarray[Any, Any]:
    """Write a token dataset of documents with these lengths, and return its stream."""
    stream = np.arange(sum(lengths), dtype=np.int64)
    write_dataset(folder, np.split(stream, np.cumsum(lengths)[:-1]), is_tokens=True, **options)
    return stream


def upload(folder: Path, url: str, options: dict[str, object]) -> None:
    """Copy a dataset to a bucket."""
    storage = open_storage(url, options)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.upload_file(path, path.relative_to(folder).as_posix())
