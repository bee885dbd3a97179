"""Building modules and data modules again from a checkpoint: which arguments, then which weights.

Stored hyper-parameters are the constructor's arguments; what the caller passes comes first. Nothing of the file is run
unless `weights_only=False` says that it is trusted.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_type_hints

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, ConfigTypeError, CorruptDataError, NotFoundError, listed
from leyden.core.lazy import Later
from leyden.fabric import checkpoint as checkpoints
from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.checkpoint.opaque import opaque_values
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.trees import map_tensors
from leyden.trainer.core.errors import CheckpointNotFoundError
from leyden.trainer.core.hparams import decode

if TYPE_CHECKING:
    from leyden.fabric.checkpoint import single_file
    from leyden.trainer.core import hparams_files
    from leyden.trainer.core.hparams_files import (
        load_hparams_from_tags_csv,
        load_hparams_from_yaml,
        save_hparams_to_tags_csv,
        save_hparams_to_yaml,
    )
else:  # a module is defined without loading one
    single_file = Later("leyden.fabric.checkpoint.single_file")
    hparams_files = Later("leyden.trainer.core.hparams_files")

__all__ = [
    "load_datamodule",
    "load_hparams_from_tags_csv",
    "load_hparams_from_yaml",
    "load_module",
    "save_hparams_to_tags_csv",
    "save_hparams_to_yaml",
]


P = ParamSpec("P")
R = TypeVar("R")

# What a model alone does not need: it stays as it is stored, pickles of callbacks included.
_OF_A_RUN = frozenset(
    {"callbacks", "gradients", "loops", "lr_schedulers", "metrics", "optimizer_states", "ranks", "run_state", "state_dict"}
)
_INSTANTIATOR = "_instantiator"
# The command line keeps a configuration instead of arguments; files say which function builds an object of it.
_INSTANTIATORS = {
    f"{package}.cli.instantiate_module": "leyden.trainer.cli" for package in ("leyden.trainer", "lightning.pytorch", "pytorch_lightning")
}


class class_method_only(Generic[P, R]):  # noqa: N801 - a decorator
    """A class method that says so when it is called on an instance, whose state it would not change."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function: Any = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Callable[..., R]:
        function = self._function
        if instance is None:

            @wraps(function)
            def bound(*args: Any, **kwargs: Any) -> R:
                return function(owner, *args, **kwargs)

            return bound

        @wraps(function)
        def refuse(*args: Any, **kwargs: Any) -> R:
            name = f"{owner.__name__}.{function.__name__}"
            raise TypeError(
                f"The classmethod `{name}` cannot be called on an instance: it returns a new object and leaves this one alone. Call it on "
                f"the class and use what it returns: model = {name}(...)."
            )

        return refuse


# -- modules and data modules ------------------------------------------------------------------------------------


def load_module(
    cls: Any,
    checkpoint_path: Any,
    *,
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Return a module with the weights and hyper-parameters of a checkpoint.

    Args:
        cls: The module's class.
        checkpoint_path: Path, URL or open file.
        map_location: Where the module goes; default: the CPU.
        hparams_file: A .yaml or .csv file whose values replace the stored ones.
        strict: Whether parameter names must match; default: the module's `strict_loading`.
        weights_only: `False` trusts the file and runs the pickles in it.
        kwargs: Override stored hyper-parameters.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CorruptDataError: It is damaged, or no checkpoint.
        ConfigError: The constructor needs an argument that is not stored, or `strict` contradicts `strict_loading`.
    """
    content = read_checkpoint(checkpoint_path, weights_only=weights_only)
    if "state_dict" not in content:
        raise CorruptDataError(f"{checkpoint_path} is not a checkpoint of Leyden or Lightning 2.x: it has the keys {listed(content)}.")
    arguments = _Arguments(cls, checkpoint_path, content, prefix="", hparams_file=hparams_file, given=kwargs)
    module = arguments.build()
    strict = _strictness(module, wanted=strict)
    module.configure_model()
    module.on_load_checkpoint(content)
    weights = content["state_dict"]
    module.load_state_dict(weights, strict=strict)
    if not any(isinstance(value, Tensor) for value in weights.values()):
        rank_zero_warn(f"The state dict in {str(checkpoint_path)!r} contains no parameters.", stacklevel=6)
        return module
    device = _device(map_location)
    return module if device is None else module.to(device)


def load_datamodule(
    cls: Any,
    checkpoint_path: Any,
    *,
    map_location: Any = None,
    hparams_file: Any = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Return a data module with the hyper-parameters and the state of a checkpoint; arguments as for `load_module`.

    Raises:
        CheckpointNotFoundError: As `load_module`.
        CorruptDataError: As `load_module`.
        ConfigError: As `load_module`.
    """
    content = read_checkpoint(checkpoint_path, weights_only=weights_only)
    result = _Arguments(cls, checkpoint_path, content, prefix="datamodule_", hparams_file=hparams_file, given=kwargs).build()
    state = content.get(type(result).__qualname__)
    if state is not None:
        device = _device(map_location)
        result.load_state_dict(state if device is None else map_tensors(state, lambda tensor: tensor.to(device)))
    return result


def read_checkpoint(place: Any, *, weights_only: bool | None = None) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU; what users put into it is decoded.

    Args:
        place: Path, URL or open file.
        weights_only: `False` trusts the file and runs the pickles in it.

    Raises:
        CheckpointNotFoundError: There is none.
        CorruptDataError: It is damaged.
        ConfigError: It holds pickles and is not trusted.
    """
    with _path(place) as path:
        try:
            content = _read(path, weights_only=weights_only)
        except NotFoundError as error:
            raise CheckpointNotFoundError(f"Checkpoint file not found: {place}. {error}") from error
    trusted = weights_only is False
    return {key: value if key in _OF_A_RUN else decode(value, trusted=trusted, place=str(key)) for key, value in content.items()}


def _read(path: str, *, weights_only: bool | None) -> dict[str, Any]:
    if weights_only is not False:
        return checkpoints.read(path, weights_only=weights_only)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*classes that are not read")
        content = checkpoints.read(path, weights_only=False)
    if Path(path).is_file() and any(True for _ in opaque_values(content)):
        # Somebody else's file, trusted: its classes are wanted.
        content = single_file.read_dict(Path(path), weights_only=False, is_mapped=False)
    return content


class _Arguments:
    """What a constructor gets: stored hyper-parameters, under what the caller gives."""

    def __init__(self, cls: Any, place: Any, content: dict[str, Any], *, prefix: str, hparams_file: Any, given: dict[str, Any]) -> None:
        self.cls = cls
        self.place = place
        self.given = given
        stored = content.get(f"{prefix}hyper_parameters") or {}
        self.stored: dict[str, Any] = dict(stored) if isinstance(stored, Mapping) else dict(vars(stored))
        if hparams_file is not None:
            self.stored = _from_file(hparams_file)
        self.name = content.get(f"{prefix}hparams_name")
        self.parameters = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])
        self.takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in self.parameters.values())
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        self.names = {name for name, parameter in self.parameters.items() if parameter.kind not in variable}

    def build(self) -> Any:
        instantiator = self.stored.pop(_INSTANTIATOR, None)
        if instantiator is not None:
            build = _instantiator(str(instantiator))
            return build(self.cls, {**self.stored, **self.given})
        arguments = self._named() if self.name in self.names else {**self.stored, **self.given}
        if not self.takes_any:
            arguments = {name: value for name, value in arguments.items() if name in self.names}
        self._check(arguments)
        return self.cls(**arguments)

    def _named(self) -> dict[str, Any]:
        """Return the one argument whose entries were kept, as what the constructor says it takes, and the caller's others."""
        name = str(self.name)
        if name in self.given:
            return self.given
        own = self.names
        values = {**self.stored, **{key: value for key, value in self.given.items() if key not in own}}
        return {name: _as_annotated(self.cls, name, values)} | {key: value for key, value in self.given.items() if key in own}

    def _check(self, arguments: dict[str, Any]) -> None:
        opaque = {name: value for name in arguments for _, value in opaque_values(arguments[name])}
        needed = [name for name in self.parameters if name in self.names and name not in arguments and self._has_no_default(name)]
        if not opaque and not needed:
            return
        reasons = [f"{name} ({value.name}) is not plain data" for name, value in opaque.items()]
        reasons += [f"{name} is not stored" for name in needed]
        call = ", ".join(f"{name}=..." for name in (*opaque, *needed))
        raise ConfigTypeError(
            f"The checkpoint cannot tell {self.cls.__name__} all its arguments: {'; '.join(reasons)}. Pass them: "
            f"{self.cls.__name__}.load_from_checkpoint({str(self.place)!r}, {call})."
        )

    def _has_no_default(self, name: str) -> bool:
        return self.parameters[name].default is inspect.Parameter.empty


def _as_annotated(cls: Any, name: str, values: dict[str, Any]) -> Any:
    """Return kept entries as the namespace or dataclass that a constructor's annotation asks for, else as a dictionary with attributes."""
    try:
        kind = get_type_hints(cls.__init__).get(name)
    except (NameError, TypeError, AttributeError):  # annotations may name what exists for type checkers only
        kind = None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind(**values)
    return argparse.Namespace(**values) if kind is argparse.Namespace else AttributeDict(values)


def _from_file(place: Any) -> dict[str, Any]:
    suffix = str(place).rsplit(".", maxsplit=1)[-1].lower()
    if suffix == "csv":
        return hparams_files.load_hparams_from_tags_csv(place)
    if suffix in ("yml", "yaml"):
        return dict(hparams_files.load_hparams_from_yaml(place))
    raise ConfigError(f"hparams_file={str(place)!r}: .csv, .yml or .yaml is required.")


def _instantiator(name: str) -> Callable[[Any, dict[str, Any]], Any]:
    home = _INSTANTIATORS.get(name)
    if home is None:
        raise ConfigError(
            f"The checkpoint's `_instantiator` is {name!r}, which is not in the allowlist of trusted instantiators: "
            f"{listed(_INSTANTIATORS)}. Pass the arguments yourself, and hparams_file with what else is needed."
        )
    build: Callable[[Any, dict[str, Any]], Any] = importlib.import_module(home).instantiate_module  # by a name of ours, not the file's
    return build


def _strictness(module: Any, *, wanted: bool | None) -> bool:
    own = module.strict_loading
    if wanted is None:
        return bool(own)
    if module.__dict__.get("_strict_loading") is not None and wanted != own:
        raise ConfigError(
            f"`load_from_checkpoint(strict={wanted})` is in conflict with `{type(module).__name__}.strict_loading={own}`. Set the same "
            "value, or leave `strict` out."
        )
    return wanted


def _device(map_location: Any) -> torch.device | None:
    """Return where `map_location` sends what lies on the CPU, as everything read here does."""
    if isinstance(map_location, Mapping):
        map_location = map_location.get("cpu")
    elif callable(map_location):
        moved = map_location(torch.empty(0).untyped_storage(), "cpu")
        map_location = None if moved is None else moved.device
    return None if map_location is None else torch.device(map_location)


@contextlib.contextmanager
def _path(place: Any) -> Iterator[str]:
    if not hasattr(place, "read"):
        yield os.fspath(place)
        return
    with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
        target = Path(folder) / "checkpoint.ckpt"
        target.write_bytes(place.read())
        yield str(target)


def __getattr__(name: str) -> Any:
    if name in __all__:  # the functions of `hparams_files`, at the path where they are looked for
        return getattr(hparams_files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
