"""Hyper-parameters in files that people read and edit: `hparams.yaml`, and the older `meta_tags.csv`."""

import ast
import csv
import enum
import io
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigTypeError, StateError
from leyden.core.files import write_atomic
from leyden.core.storage import is_url, open_storage, split_url
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.fabric.loggers.hyperparameters import as_mapping, plain

_WRITABLE = (type(None), bool, int, float, str, enum.Enum, PurePath)


def load_hparams_from_yaml(config_yaml: str | Path, use_omegaconf: bool = True) -> Any:  # noqa: FBT001, FBT002 - the documented signature
    """Return the hyper-parameters of a YAML file; an empty dictionary, with a warning, if there is none.

    Nothing in the file is run: a value of a class arrives as an `Opaque`.

    Args:
        config_yaml: Path or URL.
        use_omegaconf: Whether nested values become OmegaConf's, where the program has imported it and they fit.

    Example:
        ```python
        save_hparams_to_yaml("hparams.yaml", {"lr": 0.1})
        load_hparams_from_yaml("hparams.yaml")["lr"]
        ```
    """
    text = _text(config_yaml)
    if text is None:
        return dict[str, Any]()
    values = _read_yaml(text)
    if not isinstance(values, dict):
        raise ConfigTypeError(f"{config_yaml} holds a {type(values).__name__}; hyper-parameters are a mapping, such as `lr: 0.1`.")
    omegaconf = sys.modules.get("omegaconf") if use_omegaconf else None
    if omegaconf is None:
        return values
    return {name: omegaconf.OmegaConf.create(value) if isinstance(value, dict) else value for name, value in values.items()}


def save_hparams_to_yaml(
    config_yaml: str | Path,
    hparams: Mapping[str, Any] | Namespace,
    use_omegaconf: bool = True,  # noqa: FBT001, FBT002 - the documented signature
) -> None:
    """Write hyper-parameters to a YAML file. What YAML cannot say is written as the name of its class, with a warning.

    Args:
        config_yaml: The path; its folder must exist.
        hparams: A dictionary, namespace or dataclass.
        use_omegaconf: Whether OmegaConf's values are written as what they hold; else they count as what YAML cannot say.

    Raises:
        StateError: There is no such folder.
        ConfigTypeError: These are no hyper-parameters.
    """
    path = Path(config_yaml)
    if not path.parent.is_dir():
        raise StateError(f"Missing folder: {path.parent}. Create it first: Path({str(path.parent)!r}).mkdir(parents=True).")
    omegaconf = sys.modules.get("omegaconf") if use_omegaconf else None
    if omegaconf is not None and isinstance(hparams, omegaconf.Container):
        hparams = omegaconf.OmegaConf.to_container(hparams, resolve=True)
    values: dict[str, Any] = {}
    for name, value in as_mapping(hparams).items():
        if omegaconf is not None and isinstance(value, omegaconf.Container):
            value = omegaconf.OmegaConf.to_container(value, resolve=True)  # noqa: PLW2901 - the same value, as plain data
        if _is_writable(value):
            values[name] = plain(value)
        else:
            warnings.warn(f"Skipping {name!r} parameter because it is not possible to safely dump to YAML.", stacklevel=2)
            values[name] = type(value).__name__
    write_atomic(path, _yaml().safe_dump(values, sort_keys=False, allow_unicode=True), durable=False)


def load_hparams_from_tags_csv(tags_csv: str | Path) -> dict[str, Any]:
    """Return the hyper-parameters of a CSV file with the columns key and value; an empty dictionary, with a warning, if there is none."""
    text = _text(tags_csv)
    return {} if text is None else {row["key"]: _literal(row["value"]) for row in csv.DictReader(io.StringIO(text))}


def save_hparams_to_tags_csv(tags_csv: str | Path, hparams: Mapping[str, Any] | Namespace) -> None:
    """Write hyper-parameters to a CSV file with the columns key and value.

    Raises:
        StateError: There is no such folder.
    """
    path = Path(tags_csv)
    if not path.parent.is_dir():
        raise StateError(f"Missing folder: {path.parent}. Create it first: Path({str(path.parent)!r}).mkdir(parents=True).")
    target = io.StringIO()
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow(["key", "value"])
    rows.writerows((name, str(value)) for name, value in as_mapping(hparams).items())
    write_atomic(path, target.getvalue(), durable=False)


def _text(place: str | Path) -> str | None:
    if is_url(str(place)):
        root, key = split_url(str(place))
        storage = open_storage(root)
        if storage.exists(key):
            return storage.read(key).decode("utf-8")
    elif Path(place).is_file():
        return Path(place).read_text(encoding="utf-8")
    warnings.warn(f"Missing Tags: {place}. There are no hyper-parameters to read.", RuntimeWarning, stacklevel=3)
    return None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_writable(value: Any) -> bool:
    if isinstance(value, (Mapping, Namespace)):
        return all(map(_is_writable, as_mapping(value).values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_writable, value))
    return isinstance(value, (*_WRITABLE, torch.device, torch.dtype)) or (isinstance(value, Tensor) and value.numel() == 1)


def _yaml() -> Any:
    import yaml  # used once per run; not worth a share of the import of every module

    return yaml


def _read_yaml(text: str) -> Any:
    """Return what a YAML file says; tags of Python's classes are named, not followed."""
    yaml = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined] - imported late
        pass

    def named(loader: Any, tag: str, node: Any) -> Any:
        name = tag.replace("/", ":").rsplit(":", maxsplit=1)[-1]
        if isinstance(node, yaml.SequenceNode):
            items = loader.construct_sequence(node, deep=True)
            return tuple(items) if name == "tuple" else Opaque(name, tuple(items))
        return Opaque(name.rsplit(":", maxsplit=1)[-1])

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", named)
    return yaml.load(text, Loader)
