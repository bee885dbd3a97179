"""Hyper-parameters of a checkpoint as defaults of the command line: `predict --ckpt_path run.ckpt` needs no `--model.width`.

What the command line or a configuration file says comes first, then the checkpoint, then the class's own defaults.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from leyden.fabric.checkpoint.opaque import opaque_values
from leyden.trainer.cli.class_paths import translated
from leyden.trainer.cli.instantiate import CLASS_PATH, INSTANTIATOR
from leyden.trainer.core.saving import read_checkpoint

_WORDS = ("best", "last", "hpc")


def named_in(args: Any, commands: Iterable[str]) -> tuple[str, Any] | None:
    """Return subcommand and checkpoint that words of a command line, or a configuration, name.

    Example:
        >>> named_in(["predict", "--ckpt_path", "a.ckpt"], ["fit", "predict"])
        ('predict', 'a.ckpt')
    """
    if isinstance(args, (dict, Namespace)):
        command = args.get("subcommand") or next((name for name in commands if args.get(name) is not None), None)
        own = args.get(command) if command is not None else None
        return None if own is None else (str(command), own.get("ckpt_path"))
    words = list(args)
    command = next((word for word in words if word in set(commands)), None)
    for place, word in enumerate(words):
        if word.startswith("--ckpt_path=") and command is not None:
            return command, word.partition("=")[2]
        if word == "--ckpt_path" and command is not None and place + 1 < len(words):
            return command, words[place + 1]
    return None


def kept_in(ckpt_path: Any) -> dict[str, Any]:
    """Return the hyper-parameters of a local checkpoint, in the shape of a configuration; nothing for words such as `"best"`."""
    if not ckpt_path or str(ckpt_path) in _WORDS or not Path(str(ckpt_path)).exists():
        return {}
    hparams = read_checkpoint(ckpt_path).get("hyper_parameters") or {}
    values = dict(hparams) if isinstance(hparams, Mapping) else dict(vars(hparams))
    values = {key: value for key, value in values.items() if key != INSTANTIATOR and not any(True for _ in opaque_values(value))}
    path = values.pop(CLASS_PATH, None)
    values = translated(values)
    return values if path is None else {"class_path": translated(path), "init_args": values}


def set_defaults(parser: ArgumentParser, hparams: dict[str, Any], config: Namespace | None = None) -> bool:
    """Make hyper-parameters the defaults of a parser's `model`; return whether that could be done.

    Args:
        parser: The subcommand's parser.
        hparams: What `kept_in` returned.
        config: What was parsed, if anything was: it knows the class where the checkpoint does not.

    Raises:
        SystemExit: The module does not take them; a line says that they are the checkpoint's.
    """
    defaults = parser.get_defaults(skip_validation=True)
    chosen = (config or defaults).get("model")
    is_class = isinstance(chosen, Namespace) and "class_path" not in chosen
    if is_class:
        values = hparams.get("init_args", hparams) if "class_path" in hparams else hparams
        targets = _link_targets(parser, defaults)
        new = {f"model.{name}": value for name, value in values.items() if name not in targets}
    elif "class_path" in hparams:
        new = {"model": hparams}
    elif chosen is not None:
        new = {"model": {"class_path": chosen["class_path"], "init_args": hparams}}
    else:
        return False
    try:
        parser.set_defaults(new)
        parser.get_defaults()
    except Exception as error:  # noqa: BLE001 - whatever a parser makes of values that are not its own
        sys.stderr.write("Parsing of ckpt_path hyperparameters failed!\n")
        parser.error(f"The hyper-parameters kept in the checkpoint do not fit the model: {error}", error)
    return True


def _link_targets(parser: ArgumentParser, defaults: Namespace) -> set[str]:
    """Return the arguments of the model that a link sets."""
    with_targets, without = (
        yaml.safe_load(parser.dump(defaults, format="yaml", skip_unset=False, skip_validation=True, skip_link_targets=skips)) or {}
        for skips in (False, True)
    )
    return set(with_targets.get("model") or ()) - set(without.get("model") or ())
