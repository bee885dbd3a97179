"""Hyper-parameters as loggers store them: flat or nested plain values, and `hparams.yaml`."""

import dataclasses
import enum
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from leyden.core.errors import ConfigTypeError
from leyden.core.files import write_atomic


def as_mapping(params: Any) -> dict[str, Any]:
    """Return hyper-parameters as a dictionary.

    Raises:
        ConfigTypeError: They are neither a mapping, nor a namespace, nor a dataclass, nor `None`.
    """
    if params is None:
        return {}
    if isinstance(params, Mapping):
        return {str(name): value for name, value in params.items()}
    if isinstance(params, Namespace):
        return dict(vars(params))
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    raise ConfigTypeError(
        f"hyper-parameters {params!r} are a {type(params).__name__}. Pass a dictionary, an argparse.Namespace or a dataclass, "
        'for example: logger.log_hyperparams({"lr": 1e-3}).'
    )


def plain(value: Any) -> Any:
    """Return `value` made of what YAML and JSON know: numbers, strings, lists and dictionaries; the rest as text.

    Example:
        >>> plain({"layers": (64, 10), "path": Path("logs"), "lr": 0.1})
        {'layers': [64, 10], 'path': 'logs', 'lr': 0.1}
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (Mapping, Namespace)) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return {name: plain(each) for name, each in as_mapping(value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):  # of a subclass perhaps, as numpy's float64 is a float
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def flatten(params: Any, separator: str = "/") -> dict[str, Any]:
    """Return nested hyper-parameters as one level of plain values.

    Example:
        >>> flatten({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}})
        {'optimizer/lr': 0.1, 'optimizer/betas': '[0.9, 0.99]'}
    """
    flat: dict[str, Any] = {}
    for name, value in plain(as_mapping(params)).items():
        if isinstance(value, dict):
            flat.update({f"{name}{separator}{inner}": each for inner, each in flatten(value, separator).items()})
        else:
            flat[name] = str(value) if value is None or isinstance(value, list) else value
    return flat


def write_yaml(path: Path, params: Mapping[str, Any]) -> None:
    """Write hyper-parameters to a YAML file, replacing it.

    Raises:
        StorageError: The file cannot be written.
    """
    import yaml  # used once per run; not worth a share of the import of every logger

    write_atomic(path, yaml.safe_dump(plain(params), sort_keys=False, allow_unicode=True), durable=False)
