"""Which checkpoint `ckpt_path` means: paths, and the words `best`, `last` and `hpc`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leyden.core.errors import ConfigError, LeydenError
from leyden.core.storage import is_url, open_storage
from leyden.fabric import checkpoint
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.core.errors import CheckpointNotFoundError

HPC = re.compile(r"hpc_ckpt_(\d+)\.ckpt")
WORDS = ("best", "last", "hpc")


def resolve(word: str | Path, *, savers: Iterable[Any], others: Iterable[Any], loggers: list[Any], root_dir: str) -> str | None:
    """Return the path that `ckpt_path` means; `None` where `"last"` finds nothing.

    Args:
        word: A path, URL or word.
        savers: The `ModelCheckpoint` callbacks, in order.
        others: Paths of other checkpoints that `"last"` considers.
        loggers: The loggers, whose directory hosts checkpoints by default.
        root_dir: Where Slurm's checkpoints lie.

    Raises:
        ConfigError: A word that means nothing here.
        CheckpointNotFoundError: No file at the path.
    """
    text = str(word)
    if text == "best":
        return best(list(savers))
    if text == "last":
        return last([path for saver in savers for path in saver.find_last(loggers, root_dir)], others)
    if text == "hpc":
        found = newest_hpc(root_dir)
        if found is None:
            raise ConfigError(f'ckpt_path="hpc" is set, but no HPC checkpoint was found: no hpc_ckpt_N.ckpt in {root_dir}. Pass a path.')
        return found
    if text.startswith("registry"):
        raise ConfigError(f"ckpt_path={text!r}: model registries are not supported. Pass a path or URL of a checkpoint.")
    if not is_url(text) and not Path(text).exists():
        raise CheckpointNotFoundError(f"Checkpoint file not found: {text}. Aborting. Pass a path that exists, or one of the words {WORDS}.")
    return text


def best(savers: list[Any]) -> str:
    """Return the best checkpoint of the first saver.

    Raises:
        ConfigError: There is no saver, or it has saved none.
    """
    if not savers:
        raise ConfigError(
            'ckpt_path="best", but `ModelCheckpoint` is not configured. Add one: callbacks=[ModelCheckpoint(monitor="val_loss")].'
        )
    if len(savers) > 1:
        rank_zero_warn(f'ckpt_path="best" with {len(savers)} checkpoint callbacks: the first one\'s best model is used.')
    path = str(getattr(savers[0], "best_model_path", "") or "")
    if not path:
        raise ConfigError('ckpt_path="best", but `ModelCheckpoint` is not configured to save the best model, or has saved none yet.')
    return path


def last(saved: Iterable[str], others: Iterable[str]) -> str | None:
    """Return the newest of the savers' last checkpoints and the others: the one with the most steps inside."""
    candidates = dict.fromkeys([*map(str, saved), *map(str, others)])
    found = [(*_age(path), path) for path in candidates]
    if not found:
        rank_zero_warn('.fit(ckpt_path="last") is set, but there is no last checkpoint available. No checkpoint will be loaded.')
        return None
    return max(found)[-1]


def _age(path: str) -> tuple[int, int, float]:
    """Return (step, save counter, time) of a checkpoint; one that cannot be read is the oldest."""
    try:
        tree = checkpoint.read(path, {}, strict=False)
    except LeydenError:
        return -1, -1, 0.0
    place = Path(path)
    changed = place.stat().st_mtime if not is_url(path) and place.exists() else 0.0
    return int(tree.get("global_step", 0)), int(tree.get("run_state", {}).get("saves", 0)), changed


def newest_hpc(root_dir: str) -> str | None:
    """Return Slurm's checkpoint with the highest number."""
    found = _hpc(root_dir)
    return str(Path(root_dir) / f"hpc_ckpt_{max(found)}.ckpt") if found else None


def next_hpc(root_dir: str) -> str:
    """Return the path of Slurm's next checkpoint."""
    return str(Path(root_dir) / f"hpc_ckpt_{max(_hpc(root_dir), default=0) + 1}.ckpt")


def _hpc(root_dir: str) -> list[int]:
    folder = Path(root_dir)
    if is_url(root_dir) or not folder.is_dir():
        return []
    return [int(match[1]) for entry in folder.iterdir() if (match := HPC.fullmatch(entry.name))]


def exists(path: str) -> bool:
    """Return whether something is at a path or URL."""
    if not is_url(path):
        return Path(path).exists()
    folder, _, name = path.rpartition("/")
    storage = open_storage(folder)
    return storage.exists(name) or any(True for _ in storage.list(f"{name}/"))
