"""`TarSource`: tar shards in WebDataset's manner as blocks, and `iter_webdataset_tar`.

Files of a shard with the same name up to the first dot are one sample; what follows the dot is the leaf's name. Headers are
scanned once, when the source is made; samples are then read by ranges. All samples must have the same suffixes. A `.cls` is a
whole number, or text if that of the first sample is none.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError, NotFoundError, listed
from leyden.data.errors import SchemaError
from leyden.data.format.column import Column
from leyden.data.format.hashing import digest128
from leyden.data.format.schema import Leaf, Schema
from leyden.data.interop.blocks import ForeignSource, Plan, pack_items, unpack_items
from leyden.data.interop.columns import ForeignBlock, bytes_column, fixed_column
from leyden.data.interop.files import ForeignFiles
from leyden.data.interop.litdata_index import escaped
from leyden.data.interop.spans import Spans

KEY = "__key__"
_NUMBER = re.compile(rb"\s*[+-]?[0-9]{1,18}\s*")
TYPES = {
    "jpg": "jpeg", "jpeg": "jpeg", "png": "image", "webp": "image", "bmp": "image", "gif": "image", "tif": "tiff", "tiff": "tiff",
    "txt": "text", "text": "text", "transcript": "text", "json": "json", "cls": "int", "cls2": "int", "index": "int", "id": "text",
    "wav": "audio", "mp3": "audio", "flac": "audio", "ogg": "audio", "m4a": "audio",
    "mp4": "video", "webm": "video", "avi": "video", "mov": "video", "mkv": "video",
    "pdf": "pdf", "glb": "mesh", "ply": "mesh", "stl": "mesh", "nii": "nifti", "nii.gz": "nifti", "pkl": "pickle", "pickle": "pickle",
}  # fmt: skip


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@final
class TarSource(ForeignSource):
    """Tar shards below a folder as a `BlockSource`.

    Args:
        url: The folder or URL.
        options: Of the storage.

    Raises:
        NotFoundError: There are no tar files.
        SchemaError: Samples have different suffixes.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.files = ForeignFiles(url, options)
        self.chunk_names = tar_names(self.files)
        if not self.chunk_names:
            raise NotFoundError(f"{url} holds no tar files (*.tar).")
        shards = [_grouped(scan(self.files, name), name) for name in self.chunk_names]
        self._suffixes, self._keys, self._offsets, self._widths = _aligned(shards, self.chunk_names)
        leaves = {KEY: "str"} | {suffix: self._type_of(suffix, number) for number, suffix in enumerate(self._suffixes)}
        node = {"kind": "dict", "keys": list(leaves), "children": [_leaf(name, kind) for name, kind in leaves.items()]}
        self.schema = Schema.from_json(node)
        self._plan = Plan(
            np.array([len(keys) for keys in self._keys], np.int64), np.array([int(widths.sum()) for widths in self._widths], np.int64)
        )
        self.table = self._plan.table
        facts = [(name, keys, int(sizes.sum())) for name, keys, sizes in zip(self.chunk_names, self._keys, self._widths, strict=True)]
        self.digest = digest128(repr(facts).encode())

    def _type_of(self, suffix: str, number: int) -> str:
        """Return the type of the leaf of a suffix; whether it is a number is seen by the first sample."""
        kind = TYPES.get(suffix.lower(), "bytes")
        shard = next((shard for shard, keys in enumerate(self._keys) if keys), None)
        if kind != "int" or shard is None:
            return kind
        offset, size = int(self._offsets[shard][0, number]), int(self._widths[shard][0, number])
        first = self.files.part(self.chunk_names[shard], offset, size) if size else b""
        return "int" if _NUMBER.fullmatch(bytes(first)) else "text"

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return the files of the block's samples, in the order of suffixes, after the u32 sizes of each sample's."""
        del columns  # a sample's files lie together: leaving out some of them saves no request
        shard, first, rows = self._plan.place(block)
        offsets, widths = self._offsets[shard][first : first + rows], self._widths[shard][first : first + rows]
        begin = int(offsets.min())
        data = self.files.part(self.chunk_names[shard], begin, int((offsets + widths).max()) - begin)
        items = [_item(self._keys[shard][first + row], data, offsets[row] - begin, widths[row]) for row in range(rows)]
        ends = np.zeros(rows + 1, np.int64)
        np.cumsum([len(item) for item in items], out=ends[1:])
        return pack_items(np.frombuffer(b"".join(items), np.uint8), ends)

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""
        data, offsets = unpack_items(buffer)
        names = [KEY, *self._suffixes]
        whole = Spans(data, offsets[:-1], np.diff(offsets))
        sizes = whole.fixed("<u4", len(names)).astype(np.int64)
        starts = whole.starts[:, None] + 4 * len(names) + np.cumsum(sizes, axis=1) - sizes
        columns = []
        for leaf in self.schema.leaves:
            number = [escaped(name) for name in names].index(leaf.name)
            columns.append(_column(leaf, Spans(data, starts[:, number].copy(), sizes[:, number].copy())))
        return ForeignBlock(whole.rows, int(self.table.first_row[block]), columns)


def iter_webdataset_tar(path: str) -> Iterator[dict[str, Any]]:
    """Yield each sample of a tar as a dict of its files' bytes, with `__key__` and `__url__`.

    Args:
        path: A local tar, plain or compressed.
    """
    with tarfile.open(path) as tar:
        sample: dict[str, Any] = {}
        for member in tar:
            if not member.isfile():
                continue
            key, suffix = split_name(member.name)
            if sample and sample[KEY] != key:
                yield sample
                sample = {}
            content = tar.extractfile(member)
            sample = sample or {KEY: key, "__url__": str(path)}
            sample[suffix] = content.read() if content is not None else b""
        if sample:
            yield sample


def split_name(name: str) -> tuple[str, str]:
    """Return a member's key and suffix.

    Example:
        >>> split_name("a/b.0/cat.seg.png")
        ('a/b.0/cat', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix


def tar_names(files: ForeignFiles) -> list[str]:
    """Return the tar files below a root, in the order of their names."""
    return [name for name in files.names() if name.endswith(".tar")]


def scan(files: ForeignFiles, name: str) -> list[Member]:
    """Return the files of a tar: where each lies."""
    source: Any = files.path(name).open("rb") if files.is_local else io.BytesIO(files.whole(name))
    try:
        with source, tarfile.open(fileobj=source) as tar:
            return [Member(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
    except tarfile.TarError as error:
        raise CorruptDataError(f"{files.url}/{name} is no tar file, or damaged: {error}") from error


def _grouped(members: Sequence[Member], shard: str) -> dict[str, dict[str, Member]]:
    samples: dict[str, dict[str, Member]] = {}
    for member in members:
        key, suffix = split_name(member.name)
        if not suffix or key.rpartition("/")[2] == "":  # hidden files and files without suffix belong to no sample
            continue
        if suffix in samples.setdefault(key, {}):
            raise SchemaError(f"{shard} holds {member.name} twice.")
        samples[key][suffix] = member
    return samples


class _Aligned(NamedTuple):
    """Samples of all shards: arrays are int64 (samples, suffixes), one for each shard."""

    suffixes: list[str]
    keys: list[list[str]]
    offsets: list[NDArray[np.int64]]
    sizes: list[NDArray[np.int64]]


def _aligned(shards: Sequence[Mapping[str, Mapping[str, Member]]], names: Sequence[str]) -> _Aligned:
    none: Mapping[str, Member] = {}
    first = next((sample for shard in shards for sample in shard.values()), none)
    suffixes = list(first)
    aligned = _Aligned(suffixes, [], [], [])
    for shard, name in zip(shards, names, strict=True):
        for key, sample in shard.items():
            if sample.keys() != first.keys():
                raise SchemaError(f"{name}: sample {key!r} has {listed(sample)}, the first one {listed(suffixes)}; all must have the same.")
        rows = [[sample[suffix] for suffix in suffixes] for sample in shard.values()]
        aligned.keys.append(list(shard))
        aligned.offsets.append(np.array([[m.offset for m in row] for row in rows], np.int64).reshape(-1, len(suffixes)))
        aligned.sizes.append(np.array([[m.size for m in row] for row in rows], np.int64).reshape(-1, len(suffixes)))
    return aligned


def _leaf(name: str, kind: str) -> dict[str, Any]:
    return {"kind": "leaf", "name": escaped(name), "nullable": False, "type": kind}


def _item(key: str, data: Any, offsets: Any, sizes: Any) -> bytes:
    name = key.encode()
    head = np.array([len(name), *sizes.tolist()], "<u4").tobytes()
    return head + name + b"".join(bytes(data[o : o + n]) for o, n in zip(offsets.tolist(), sizes.tolist(), strict=True))


def _column(leaf: Leaf, spans: Spans) -> Column:
    if leaf.type != "int":
        return bytes_column(*spans.joined())
    texts = [bytes(spans.row(row)) for row in range(spans.rows)]
    wrong = next((text for text in texts if not _NUMBER.fullmatch(text)), None)
    if wrong is not None:
        raise SchemaError(
            f"a sample has {wrong!r:.60} as its .{leaf.name}, and the first sample a whole number: write all as numbers, or text into .txt."
        )
    return fixed_column("int64", np.array([int(text) for text in texts], np.int64))
