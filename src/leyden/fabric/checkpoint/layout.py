"""The files of a checkpoint directory and the two JSON documents that describe it: `meta.json` and `index.json`.

```
step-00000100/
  meta.json                        written last: a directory without it is no checkpoint
  <key>.safetensors                full: one per module
  index.json  shards/shard-*.safetensors     sharded: where each box of each tensor lies
  train.pt                         everything else: values, optimizers (full), options (sharded), loss scale
  ranks/rank-*.pt                  per rank: RNG and the states of loaders
```

A single file holds the same `Meta` as a dictionary under `"__leyden__"`. Here are only names and documents; bytes of tensors
are in `tensor_file`, what goes where in `directory` and `shards`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import torch

from leyden.core.errors import CorruptDataError, StorageError

FORMAT = "leyden.checkpoint"
VERSION = 1
READABLE = (1,)  # this version and the one before
EXTRAS = "__leyden__"
META, INDEX, TRAIN, SHARDS, RANKS = "meta.json", "index.json", "train.pt", "shards", "ranks"
FOLDER = "save"  # a second save at a URL fills a folder `save-<id>`, and `meta.json` names it
_FOLDER = re.compile(rf"{FOLDER}-[0-9a-z]{{20}}")
Layout: TypeAlias = Literal["file", "full", "sharded", "deepspeed"]


def leyden_version() -> str:
    """Return the version of this package."""
    try:
        return metadata.version("leyden")
    except metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """Size and checksum of one file, as they were when it was written."""

    bytes: int
    crc32: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Meta:
    """What a checkpoint says about itself.

    Args:
        layout: Which files there are.
        strategy: The strategy that wrote it, as its registered name.
        precision: Its precision.
        world_size: How many ranks wrote it.
        mesh: Axes and sizes of their mesh.
        seed: The run's seed, if it had one.
        step: `state["step"]` (or `global_step`), if there was one.
        entries: Key → `{"kind": "module"|"optimizer"|"per_rank"|"object"|"value", …}`.
        files: Relative path → size and checksum.
    """

    layout: Layout
    strategy: str = "single_device"
    precision: str = "32-true"
    world_size: int = 1
    mesh: dict[str, list[Any]] | None = None
    seed: int | None = None
    step: int | None = None
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    leyden: str = field(default_factory=leyden_version)
    torch: str = field(default_factory=lambda: torch.__version__.partition("+")[0])
    format: str = FORMAT
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the document, keys in the order a reader wants them."""
        document = asdict(self)
        head = ("format", "version", "layout", "created", "leyden", "torch")
        return {key: document.pop(key) for key in head} | document

    @classmethod
    def from_dict(cls, document: Any, where: str) -> "Meta":
        """Return the `Meta` of a document.

        Raises:
            StorageError: A newer version of Leyden wrote it.
            CorruptDataError: It is something else.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise CorruptDataError(f"{where} does not describe a checkpoint of Leyden: its format should be {FORMAT!r}.")
        version = document.get("version")
        if version not in READABLE:
            needed = (
                f"Leyden {document.get('leyden', '?')} or newer" if isinstance(version, int) and version > VERSION else "an older Leyden"
            )
            raise StorageError(f"{where} is a checkpoint of format version {version!r}; this Leyden reads {READABLE[-1]}. Use {needed}.")
        known = {name for name in cls.__slots__ if name in document}
        try:
            values = {name: document[name] for name in known}
            values["files"] = {name: FileRecord(**record) for name, record in document.get("files", {}).items()}
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise CorruptDataError(f"{where} is damaged: {error}.") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A box of a tensor and where its bytes are."""

    offset: tuple[int, ...]
    size: tuple[int, ...]
    file: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedTensor:
    """A tensor that lies in boxes over several files."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorIndex:
    """`index.json`: every tensor of a sharded directory, and names that stand for another tensor (tied weights)."""

    tensors: dict[str, IndexedTensor]
    aliases: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the document."""
        tensors = {
            name: {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "chunks": [
                    {"offset": list(chunk.offset), "size": list(chunk.size), "file": chunk.file, "key": chunk.key}
                    for chunk in tensor.chunks
                ],
            }
            for name, tensor in self.tensors.items()
        }
        return {"version": VERSION, "tensors": tensors} | ({"aliases": self.aliases} if self.aliases else {})

    @classmethod
    def from_dict(cls, document: Any, where: str) -> "TensorIndex":
        """Return the index of a document.

        Raises:
            CorruptDataError: It is something else.
        """
        try:
            tensors = {
                name: IndexedTensor(
                    dtype=dtype_named(entry["dtype"]),
                    shape=tuple(entry["shape"]),
                    chunks=tuple(
                        Chunk(offset=tuple(chunk["offset"]), size=tuple(chunk["size"]), file=chunk["file"], key=chunk["key"])
                        for chunk in entry["chunks"]
                    ),
                )
                for name, entry in document["tensors"].items()
            }
            return cls(tensors=tensors, aliases=dict(document.get("aliases", {})))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CorruptDataError(f"{where} is damaged: {type(error).__name__} {error}.") from error


def dtype_named(name: str) -> torch.dtype:
    """Return torch's dtype of a name such as `"bfloat16"`.

    Raises:
        ValueError: There is none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch {torch.__version__}")
    return dtype


def read_json(path: Path) -> Any:
    """Return a JSON document.

    Raises:
        CorruptDataError: The file is no JSON.
        StorageError: The file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptDataError(f"{path} is no JSON: {error}. The checkpoint is damaged; load an older one.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error


def is_complete(path: Path) -> bool:
    """Return whether a directory holds a whole checkpoint of ours: `meta.json` is written last."""
    return (path / META).is_file()


def is_folder(name: str) -> bool:
    """Return whether a second save at a URL gave a folder this name."""
    return _FOLDER.fullmatch(name) is not None


def folder_in(document: bytes, where: str) -> str:
    """Return the folder that a `meta.json` names; `""`: the files are beside it.

    Raises:
        CorruptDataError: It is no JSON, or names something else.
    """
    try:
        folder = json.loads(document).get("folder", "")
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(f"{where} is damaged: {error}. Load an older checkpoint.") from error
    if folder and not (isinstance(folder, str) and is_folder(folder)):
        raise CorruptDataError(f"{where} is damaged: it names the folder {folder!r}. Load an older checkpoint.")
    return folder


def home(directory: Path) -> Path:
    """Return where the files of a checkpoint directory are: it may be a copy of a URL that was saved to twice."""
    if not is_complete(directory):
        return directory
    try:
        return directory / folder_in((directory / META).read_bytes(), str(directory / META))
    except OSError as error:
        raise StorageError(f"{directory / META} cannot be read: {error}.") from error


def read_meta(directory: Path) -> Meta:
    """Return a directory's `Meta`."""
    return Meta.from_dict(read_json(directory / META), str(directory / META))


def read_index(directory: Path) -> TensorIndex:
    """Return a sharded directory's index."""
    return TensorIndex.from_dict(read_json(directory / INDEX), str(directory / INDEX))


def check_files(directory: Path, meta: Meta) -> None:
    """Compare every file's size with what `meta` says.

    Raises:
        CorruptDataError: A file is missing, or longer or shorter than it was written.
    """
    for name, record in meta.files.items():
        path = directory / name
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise CorruptDataError(f"{path} is missing from the checkpoint; load an older one, or copy the file again.") from error
        if size != record.bytes:
            raise CorruptDataError(f"{path} has {size:,} bytes but was written with {record.bytes:,}; load an older one, or copy it again.")


def file_name(key: str, suffix: str = ".safetensors") -> str:
    """Return the file name of a key: what is not in `[A-Za-z0-9_.-]` is percent-encoded.

    Example:
        >>> file_name("my model/ä")
        'my%20model%2F%C3%A4.safetensors'
    """
    return quote(key, safe="").replace("~", "%7E") + suffix


def shard_name(rank: int) -> str:
    """Return the relative path of a rank's shard."""
    return f"{SHARDS}/shard-{rank:05d}.safetensors"


def rank_name(rank: int) -> str:
    """Return the relative path of a rank's own state."""
    return f"{RANKS}/rank-{rank:05d}.pt"
