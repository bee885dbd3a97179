"""Hyper-parameters of a checkpoint as defaults of the command line: `predict --ckpt_path run.ckpt` needs no `--model.width`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from leyden.fabric.checkpoint.opaque import opaque_values
from leyden.trainer.cli.class_paths import translated
from leyden.trainer.cli.instantiate import CLASS_PATH, INSTANTIATOR
from leyden.trainer.core.saving import read_checkpoint


def kept_in(ckpt_path: Any) -> dict[str, Any]:
    """Return the hyper-parameters of a local checkpoint, in the shape of a configuration; nothing for words such as `"best"`."""
    if not ckpt_path or not Path(str(ckpt_path)).exists():
        return {}
    hparams = read_checkpoint(ckpt_path).get("hyper_parameters") or {}
    values = dict(hparams) if isinstance(hparams, Mapping) else dict(vars(hparams))
    values = {key: value for key, value in values.items() if key != INSTANTIATOR and not any(True for _ in opaque_values(value))}
    path = values.pop(CLASS_PATH, None)
    values = translated(values)
    return values if path is None else {"class_path": translated(path), "init_args": values}


def set_defaults(parser: ArgumentParser, config: Namespace, hparams: dict[str, Any]) -> None:
    """Make hyper-parameters the defaults of a parser's `model`; those that a link sets are left to it.

    Args:
        parser: The parser, of a subcommand or without.
        config: A configuration that it accepts.
        hparams: What `kept_in` returned.

    Raises:
        SystemExit: The module does not take them; a line says that they are the checkpoint's.
    """
    own = _without_link_targets(parser, config, hparams)
    whole = config.clone()
    try:
        parser.parse_object({"model": own}, namespace=whole, env=False)
    except BaseException:  # SystemExit, or what the parser raises instead
        sys.stderr.write("Parsing of ckpt_path hyperparameters failed!\n")
        raise
    if "class_path" in own:
        parser.set_defaults({"model": own})
    else:
        parser.set_defaults({f"model.{name}": value for name, value in own.items()})


def _without_link_targets(parser: ArgumentParser, config: Namespace, hparams: dict[str, Any]) -> dict[str, Any]:
    everything = _arguments(parser, config, skip_link_targets=False)
    targets = everything - _arguments(parser, config, skip_link_targets=True)
    if "class_path" in hparams:
        kept = {name: value for name, value in hparams["init_args"].items() if name not in targets}
        return {"class_path": hparams["class_path"], "init_args": kept}
    return {name: value for name, value in hparams.items() if name not in targets}


def _arguments(parser: ArgumentParser, config: Namespace, *, skip_link_targets: bool) -> set[str]:
    text = parser.dump(config, skip_unset=False, skip_validation=True, skip_link_targets=skip_link_targets)
    model = (yaml.safe_load(text) or {}).get("model") or {}
    return set(model.get("init_args") or () if "class_path" in model else model)
