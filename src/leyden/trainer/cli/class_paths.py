"""Class paths that configuration files of other times and places hold, and what they are called here.

Names below `lightning.pytorch` are the same below `leyden.trainer`, so a file written for PyTorch Lightning is read as it
stands. A path is translated only if the class is there; any other stays as it was, and the error names it.

Two short names would mean two classes. `ReduceLROnPlateau` is the one of `leyden.trainer.cli`, which knows its metric, and
`TensorBoardLogger` the trainer's; torch's and fabric's have to be named in full.
"""

import importlib
import re
from functools import cache
from typing import Any

_PREFIXES = {
    "lightning.pytorch.": "leyden.trainer.",
    "pytorch_lightning.": "leyden.trainer.",
    "lightning.fabric.": "leyden.fabric.",
    "lightning_fabric.": "leyden.fabric.",
}
_TOP = "lightning."  # `lightning.Trainer`, `lightning.LightningModule`: what the package itself exports
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_SHORT = {
    "ReduceLROnPlateau": "leyden.trainer.cli.ReduceLROnPlateau",
    "TensorBoardLogger": "leyden.trainer.loggers.TensorBoardLogger",
}


def translated(value: Any) -> Any:
    """Return a tree of dictionaries, lists and strings with the class paths in it as they are called here."""
    if isinstance(value, str):
        return _translated_text(value)
    if isinstance(value, dict):
        return {key: translated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [translated(item) for item in value]
    return value


def translated_word(word: str) -> str:
    """Return a word of a command line, `--option=path` or `path`, with the class path in it as it is called here."""
    option, sign, path = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{sign}{_translated_text(path)}" if path else word


def _translated_text(text: str) -> str:
    if text in _SHORT:
        return _SHORT[text]
    if not text.startswith(("lightning", "pytorch_lightning.")) or not _PATH.fullmatch(text):
        return text
    return _home_of(text) or text


@cache
def _home_of(path: str) -> str | None:
    prefix = next((prefix for prefix in _PREFIXES if path.startswith(prefix)), None)
    if prefix is not None:
        own = _PREFIXES[prefix] + path.removeprefix(prefix)
        return own if _is_there(own) else None
    own = "leyden.trainer." + path.removeprefix(_TOP)
    return own if path.startswith(_TOP) and path.count(".") == 1 and _is_there(own) else None


def _is_there(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False
