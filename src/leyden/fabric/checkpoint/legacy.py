"""Checkpoints that Leyden did not write: Lightning 2.x files and folders, torch's distributed folders, safetensors.

`kind_of` tells what lies at a path, by content. `read` returns it as a dictionary in memory; `open_foreign` as a `Saved`,
whose tensors are read when they are wanted, which is what `load` under a sharded strategy and `convert` use. No pickle
in these files is run (`restricted`); values whose classes would have to be imported arrive as `Opaque`, with a warning.

| kind | known by | dictionary |
|---|---|---|
| Trainer file, any `torch.save` file | zip or old pickle header | as it was saved |
| 2.x FSDP and ModelParallel folder | `.metadata` and `meta.pt` | both merged; Trainer's with `state_dict`, `optimizer_states` |
| torch.distributed.checkpoint folder | `.metadata` | the nested dictionary |
| safetensors file, HF folder or index | header; `*.safetensors[.index.json]` | name → tensor |
"""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import Tensor

from leyden.core.errors import CorruptDataError, NotFoundError, StorageError, UnsupportedError, closest
from leyden.fabric.checkpoint import layout
from leyden.fabric.checkpoint.dcp import DcpFolder, is_dcp
from leyden.fabric.checkpoint.layout import Chunk
from leyden.fabric.checkpoint.opaque import warn_of_opaque
from leyden.fabric.checkpoint.restricted import read_torch
from leyden.fabric.checkpoint.saved import FileTensor, OpenFiles, Saved, SavedModule, SavedTensor, as_optimizer

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the second: torch's magic number before 1.6
_VERSION_KEY = "pytorch-lightning_version"
_META = "meta.pt"
_INDEX = "*.safetensors.index.json"


class Kind(StrEnum):
    """What a path holds."""

    LEYDEN_FILE = "leyden-file"
    LEYDEN_FULL = "leyden-full"
    LEYDEN_SHARDED = "leyden-sharded"
    LEYDEN_DEEPSPEED = "leyden-deepspeed"
    LIGHTNING_TRAINER = "lightning-trainer"
    LIGHTNING_FOLDER = "lightning-folder"
    TORCH = "torch"
    DCP = "dcp"
    SAFETENSORS = "safetensors"
    HF = "hf"
    DEEPSPEED = "deepspeed"

    @property
    def is_ours(self) -> bool:
        """Whether Leyden wrote it."""
        return self.value.startswith("leyden-")


def kind_of(path: str | Path) -> Kind:
    """Return what kind of checkpoint lies at a path, by its content.

    Args:
        path: A file or a folder.

    Raises:
        NotFoundError: Nothing is there, or a folder that is no checkpoint.
        CorruptDataError: A file that is no checkpoint, or damaged.
        StorageError: It cannot be read.
    """
    place = Path(path)
    if place.is_dir():
        return _kind_of_folder(place)
    if not place.exists():
        raise NotFoundError(f"there is no checkpoint at {place}. {_what_is_there(place)}".rstrip())
    return _kind_of_file(place)


def read(path: str | Path) -> dict[str, Any]:
    """Return a foreign checkpoint as one dictionary, in memory, tensors on the CPU.

    Args:
        path: A file or folder of one of the kinds above.

    Raises:
        NotFoundError: Nothing is there, or no checkpoint.
        CorruptDataError: It is damaged, or tampered with.
        StorageError: It cannot be read.
        UnsupportedError: A DeepSpeed folder.

    Example:
        ```python
        checkpoint = read("lightning_logs/version_0/checkpoints/epoch=9.ckpt")
        model.load_state_dict(checkpoint["state_dict"])
        ```
    """
    place = Path(path)
    if place.is_file() and _header(place)[:4] in (_ZIP, _PICKLE[:4]):
        content = _dictionary(read_torch(place, is_mapped=False), place)
        warn_of_opaque(content, str(place))
        return content
    saved = open_foreign(place)
    try:
        tree: dict[str, Any] = _in_memory(saved.tree)
    finally:
        saved.close()
    return tree["model"] if kind_of(place) in (Kind.SAFETENSORS, Kind.HF) else tree


def open_foreign(path: str | Path) -> Saved:
    """Return a foreign checkpoint opened: modules and optimizers of folders stay in their files until they are wanted.

    The tensors of safetensors lie under the key `"model"`.

    Args:
        path: A file or folder of one of the kinds above.

    Raises:
        NotFoundError: Nothing is there, or no checkpoint.
        CorruptDataError: It is damaged, or tampered with.
        StorageError: It cannot be read.
        UnsupportedError: A DeepSpeed folder.
    """
    place = Path(path)
    kind = kind_of(place)
    if kind in (Kind.DEEPSPEED, Kind.LEYDEN_DEEPSPEED):
        raise UnsupportedError(
            f"{place} holds DeepSpeed's shards; load it with strategy='deepspeed', or merge them: leyden ckpt convert {place} DST"
        )
    if kind in (Kind.SAFETENSORS, Kind.HF):
        return _open_safetensors(place)
    if kind in (Kind.DCP, Kind.LIGHTNING_FOLDER):
        saved = Saved(path=str(place), tree=_folder_tree(place))
    else:
        saved = Saved(path=str(place), tree=_dictionary(read_torch(place), place), is_mapped=True)
    warn_of_opaque(saved.tree, saved.path)
    return saved


def safetensors_files(path: Path) -> list[Path]:
    """Return the files that a safetensors file, an index or a HF folder names, in order.

    Raises:
        CorruptDataError: The index is damaged, or names a file that is missing or elsewhere.
    """
    if path.is_dir():
        index = next(iter(sorted(path.glob(_INDEX))), None)
        return safetensors_files(index) if index is not None else sorted(path.glob("*.safetensors"))
    if _header(path)[:1] != b"{":
        return [path]
    document = layout.read_json(path)
    names = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(names, dict) or any(not isinstance(name, str) or Path(name).name != name for name in names.values()):
        raise CorruptDataError(f"{path} is no index of safetensors: 'weight_map' should map each tensor to a file beside it.")
    files = [path.with_name(name) for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CorruptDataError(f"{path} names files that are missing: {', '.join(missing)}. Copy them beside it.")
    return files


def _kind_of_folder(path: Path) -> Kind:
    if layout.is_complete(path):
        return Kind(f"leyden-{layout.read_meta(path).layout}")
    if is_dcp(path):
        return Kind.LIGHTNING_FOLDER if (path / _META).is_file() else Kind.DCP
    if deepspeed_folder(path) is not None:
        return Kind.DEEPSPEED
    if any(path.glob("*.safetensors")) and not (path / layout.TRAIN).exists():
        return Kind.HF
    if (path / layout.TRAIN).exists() or (path / layout.SHARDS).exists():
        raise NotFoundError(f"{path} is a save that was not finished: it has no {layout.META}. Load an older checkpoint.")
    raise NotFoundError(f"{path} is no checkpoint. {_what_is_there(path / 'x')}")


def _kind_of_file(path: Path) -> Kind:
    header = _header(path)
    if header.startswith((_ZIP, _PICKLE)):
        content = _dictionary(read_torch(path), path)
        if isinstance(content.get(layout.EXTRAS), dict):
            return Kind.LEYDEN_FILE
        return Kind.LIGHTNING_TRAINER if _VERSION_KEY in content else Kind.TORCH
    if header[:1] == b"{":
        safetensors_files(path)
        return Kind.HF
    if len(header) > 8 and header[8:9] == b"{":
        return Kind.SAFETENSORS
    raise CorruptDataError(
        f"{path} is no checkpoint: neither a torch.save file, nor safetensors, nor an index of them. It may be truncated."
    )


def deepspeed_folder(path: Path) -> Path | None:
    """Return the folder with `zero_to_fp32`'s input if DeepSpeed wrote `path`: the one with a `latest` file or a `checkpoint` tag."""
    for folder in (path, path / "deepspeed"):
        if any(folder.glob("*/*_model_states.pt")):
            return folder
    return path.parent if any(path.glob("*_model_states.pt")) else None


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_PICKLE))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no checkpoint at {path}. {_what_is_there(path)}".rstrip()) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _dictionary(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CorruptDataError(f"{path} holds a {type(content).__name__}, not a dictionary; it is no checkpoint.")
    return content


def _folder_tree(path: Path) -> dict[str, Any]:
    tree = DcpFolder(path).tree()
    rest = _dictionary(read_torch(path / _META), path / _META) if (path / _META).is_file() else {}
    if _VERSION_KEY in rest:
        tree = _as_trainer(tree)
    return {key: _with_parts(value) for key, value in tree.items()} | rest


def _as_trainer(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a Trainer folder's tree with the keys of a Trainer's file."""
    numbered = {int(match[1]): key for key in tree if (match := re.fullmatch(r"optimizer_(\d+)", str(key)))}
    trainer = {("state_dict" if key == "model" else key): value for key, value in tree.items() if key not in numbered.values()}
    return trainer | {"optimizer_states": [tree[numbered[number]] for number in sorted(numbered)]}


def _with_parts(value: Any) -> Any:
    """Return a tree with modules and optimizers, whose tensors are not read yet, in the form that loaders take."""
    if isinstance(value, list):
        return [_with_parts(item) for item in value]
    if not isinstance(value, dict):
        return value.load() if isinstance(value, SavedTensor) else value
    optimizer = as_optimizer(_numbered(value), is_mapped=False)
    if optimizer is not None:
        return optimizer
    if any(isinstance(item, SavedTensor) for item in value.values()):
        return SavedModule(values=dict(value))
    return {key: _with_parts(item) for key, item in value.items()}


def _numbered(value: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with numbers as keys where its groups have numbers: DCP makes strings of keys."""
    groups = value.get("param_groups")
    if not isinstance(groups, list) or not all(type(member) is int for group in groups for member in group.get("params", [""])):
        return value
    state = value.get("state") or {}
    return value | {"state": {int(key) if str(key).isdigit() else key: slots for key, slots in state.items()}}


def _open_safetensors(path: Path) -> Saved:
    files = safetensors_files(path)
    opened = OpenFiles(files[0].parent)
    values: dict[str, Any] = {}
    for file in files:
        held = opened[file.name]
        for name, span in held.tensors.items():
            chunk = Chunk(offset=(0,) * len(span.shape), size=span.shape, file=file.name, key=name)
            values[name] = FileTensor(opened, span.dtype, span.shape, (chunk,), name)
        aliases = json.loads(held.metadata.get("aliases", "{}"))
        values |= {alias: values[kept] for alias, kept in aliases.items() if kept in values}
    return Saved(path=str(path), tree={"model": SavedModule(values=values)}, files=opened)


def _in_memory(value: Any) -> Any:
    if callable(getattr(value, "load", None)) and not isinstance(value, (Tensor, Mapping)):
        return value.load()
    if type(value) is dict:
        return {key: _in_memory(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [_in_memory(item) for item in value]
        return items if type(value) is list else tuple(items)
    return value


def _what_is_there(path: Path) -> str:
    """Return a sentence about a path's neighbours, for an error."""
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir())
    shown = ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")
    return f"{path.parent} holds {shown or 'nothing'}.{closest(path.name, names)}"
