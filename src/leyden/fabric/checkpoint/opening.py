"""From a path to an opened checkpoint, by content and never by name; foreign files go to `legacy`.

A path that ends in `latest` (a text file with the name of the newest checkpoint), and the folder it is in, stand for that
checkpoint.
"""

import difflib
from pathlib import Path
from typing import Any

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError
from leyden.core.files import is_leftover
from leyden.fabric.checkpoint import directory, layout, publish, single_file
from leyden.fabric.checkpoint.layout import Chunk, read_json
from leyden.fabric.checkpoint.saved import FileTensor, OpenFiles, Saved
from leyden.fabric.checkpoint.tensor_file import TensorFile

LATEST = "latest"
_LONGEST_NAME = 255


def resolve(path: str | Path) -> Path:
    """Return the local path of a checkpoint: `latest` followed, and what a killed save left there finished.

    Raises:
        CorruptDataError: `latest` does not hold a name, or `meta.json` is damaged.
    """
    place = Path(path)
    if place.is_dir() and (newest := _newest_in(place)) is not None:
        place = newest
    elif place.name == LATEST and place.is_file() and place.stat().st_size <= _LONGEST_NAME:
        name = place.read_text(encoding="utf-8", errors="replace").strip()
        if not name or "/" in name or name == LATEST:
            raise CorruptDataError(f"{place} should hold the name of a checkpoint beside it, but holds {name!r}. Name one yourself.")
        place = place.with_name(name)
    publish.recover(place)
    return layout.home(place)


def _newest_in(folder: Path) -> Path | None:
    """Return what `latest` names in a folder of checkpoints; engines have folders with a `latest` of their own meaning."""
    pointer = folder / LATEST
    if layout.is_complete(folder) or not pointer.is_file() or pointer.stat().st_size > _LONGEST_NAME:
        return None
    place = folder / pointer.read_text(encoding="utf-8", errors="replace").strip()
    is_ours = place != folder and (layout.is_complete(place) or (place.is_file() and single_file.is_zip(place)))
    return place if is_ours else None


def open_path(path: str | Path, *, weights_only: bool | None = None) -> Saved:
    """Open the checkpoint at a local path, of any kind.

    Raises:
        NotFoundError: There is none; says what is there.
        CorruptDataError: It is damaged, or no checkpoint.
        StorageError: A newer Leyden wrote it, or it cannot be read.
    """
    place = Path(path)
    if not place.exists():
        raise not_found(place)
    if layout.is_complete(place):
        return directory.open_directory(place, weights_only=weights_only)
    if place.is_file() and single_file.is_zip(place) and single_file.is_ours(place):
        return single_file.open_file(place, weights_only=weights_only)
    if place.is_dir() and not any(place.iterdir()):
        raise not_found(place)
    if (place / layout.RANKS).is_dir():
        raise NotFoundError(f"{place} has no {layout.META}, so the save that wrote it was never finished. Load another checkpoint.")
    return Saved(path=str(place), tree=_foreign(place))


def not_found(path: Path) -> NotFoundError:
    """Return the error for a path without a checkpoint: what is there, the closest names first."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return NotFoundError(f"there is no checkpoint at {path}: the directory {folder} does not exist. Check the path.")
    names = sorted(entry.name for entry in folder.iterdir() if not is_leftover(entry.name) and entry.name != LATEST)
    if not names:
        return NotFoundError(f"there is no checkpoint at {path}: {folder} is empty.")
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    shown = [*near, *(name for name in reversed(names) if name not in near)][:10]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return NotFoundError(f"there is no checkpoint at {path}.{hint} In {folder}: {', '.join(shown)}{more}.")


def open_raw(path: Path, *, weights_only: bool | None = None) -> Saved:
    """Open a bare state dict: a `torch.save` file, a safetensors file, or the index of a sharded one.

    Raises:
        NotFoundError: There is nothing at the path.
        ConfigError: It is a whole checkpoint, which `load` reads.
        CorruptDataError: It is damaged.
    """
    if not path.exists():
        raise not_found(path)
    if layout.is_complete(path):
        raise ConfigError(f"load_raw({str(path)!r}): this is a checkpoint with {_keys(path)}; use load(path, {{'key': object}}).")
    if path.is_dir():
        path = _weights_in(path)
    if path.suffix == ".json" or path.name.endswith(".index.json"):
        return _open_index(path)
    if single_file.is_zip(path):
        if single_file.is_ours(path):
            raise ConfigError(f"load_raw({str(path)!r}): this is a checkpoint of Leyden; use load(path, {{'key': object}}).")
        return _open_torch(path, weights_only=weights_only)
    if _is_safetensors(path):
        return _open_files(path.parent, [path.name])
    return Saved(path=str(path), tree=_foreign(path))


def _weights_in(path: Path) -> Path:
    """Return the file with the weights of a directory as Hugging Face lays it out."""
    for name in ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise not_found(path / "model.safetensors")


def _open_torch(path: Path, *, weights_only: bool | None) -> Saved:
    try:
        return Saved(path=str(path), tree=single_file.read_dict(path, weights_only=weights_only), is_mapped=True)
    except CorruptDataError:
        if weights_only is False:
            raise
        return Saved(path=str(path), tree=_foreign(path))  # holds names that only the restricted reader knows


def _open_index(path: Path) -> Saved:
    document = read_json(path)
    names = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(names, dict):
        raise CorruptDataError(f"{path} is no index of safetensors files: it has no weight_map.")
    return _open_files(path.parent, sorted(set(names.values())))


def _open_files(folder: Path, names: list[str]) -> Saved:
    files = OpenFiles(folder)
    tree: dict[str, Any] = {}
    with files.closed_on_error():
        for name in names:
            for tensor, span in files[name].tensors.items():
                chunk = Chunk(offset=(0,) * len(span.shape), size=span.shape, file=name, key=tensor)
                tree[tensor] = FileTensor(files, span.dtype, span.shape, (chunk,), tensor)
    return Saved(path=str(folder / names[0] if len(names) == 1 else folder), tree=tree, files=files)


def _is_safetensors(path: Path) -> bool:
    try:
        TensorFile(path).close()
    except CorruptDataError:
        if path.suffix == ".safetensors":
            raise  # it says what it is: report what is wrong with it
        return False
    return True


def _foreign(path: Path) -> dict[str, Any]:
    from leyden.fabric.checkpoint import legacy  # an unpickler that few runs need

    tree: dict[str, Any] = legacy.read(path)
    return tree


def _keys(path: Path) -> str:
    return ", ".join(repr(key) for key in layout.read_meta(path).entries)
