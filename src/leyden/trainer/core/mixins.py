"""`HyperparametersMixin`: what `save_hyperparameters` adds to modules and data modules."""

import copy
import inspect
import warnings
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.loggers.hyperparameters import as_mapping
from leyden.trainer.core.hparams import given_arguments
from leyden.trainer.core.init_arguments import init_arguments

_PRIMITIVES = (bool, int, float, str)


class HyperparametersMixin:
    """Keeps the arguments an object was built with, for checkpoints and loggers.

    Example:
        >>> class Model(HyperparametersMixin):
        ...     def __init__(self, width=8, lr=0.1, **kwargs):
        ...         self.save_hyperparameters(ignore="lr")
        >>> Model(16, depth=2).hparams
        "depth": 2
        "width": 16
    """

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: str | Iterable[str] | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Keep the arguments of `__init__` as hyper-parameters.

        Without arguments, all of them: those of the outermost subclass and, below them, what it passed on.

        Args:
            args: Names: only these. One object (a dictionary, namespace or dataclass): its entries.
            ignore: Names to leave out.
            frame: The frame of `__init__`; default: the caller's.
            logger: Whether loggers get them too.

        Raises:
            ConfigError: An unknown name, or an object that is no collection of values.

        Example:
            ```python
            class Model(LightningModule):
                def __init__(self, width: int, backbone: nn.Module):
                    super().__init__()
                    self.save_hyperparameters(ignore="backbone")
            ```
        """
        if frame is None:
            current = inspect.currentframe()
            frame = current.f_back if current is not None else None
        given = given_arguments(type(self))
        arguments = init_arguments(self, frame) if given is None else dict(given)
        left_out = {ignore} if isinstance(ignore, str) else set(ignore or ())
        arguments = {name: value for name, value in arguments.items() if name not in left_out}
        name, values = _chosen(args, arguments, type(self).__name__)
        own = self.__dict__
        own["_hparams_name"], own["_log_hyperparams"] = name, logger
        self._set_hparams({key: value for key, value in values.items() if key not in left_out})
        _warn_of_modules(self.hparams)
        own["_hparams_initial"] = AttributeDict((key, _copied(value)) for key, value in self.hparams.items())

    def _set_hparams(self, hp: Any) -> None:
        """Add values to the hyper-parameters."""
        self.hparams.update(_as_hparams(hp))

    @property
    def hparams(self) -> AttributeDict:
        """The hyper-parameters: a dictionary with attributes, yours to change."""
        values: AttributeDict = self.__dict__.setdefault("_hparams", AttributeDict())
        return values

    @property
    def hparams_initial(self) -> AttributeDict:
        """A copy of the hyper-parameters as they were first kept."""
        return copy.copy(self.__dict__.get("_hparams_initial", AttributeDict()))


def _chosen(args: tuple[Any, ...], arguments: dict[str, Any], owner: str) -> tuple[str | None, dict[str, Any]]:
    """Return the name of the argument that the values are those of (`kwargs` for the arguments themselves), and the values."""
    if not args:
        return ("kwargs" if arguments else None), arguments
    objects = [arg for arg in args if not isinstance(arg, str)]
    if not objects:
        if unknown := [name for name in args if name not in arguments]:
            raise ConfigError(
                f"save_hyperparameters({listed(args)}): {owner}.__init__ has no argument {unknown[0]!r} (that is not ignored); it has "
                f"{listed(arguments)}.{closest(unknown[0], arguments)} Primitives are not allowed as hyper-parameters themselves: name an "
                "argument, or pass a dictionary."
            )
        return "kwargs", {name: arguments[name] for name in args}
    if len(args) > 1:
        raise ConfigError("save_hyperparameters takes names of arguments, or one object; several were given, and not all are names.")
    values = objects[0]
    name = next((name for name, value in arguments.items() if value is values), None)
    return name, _as_hparams(values)


def _as_hparams(values: Any) -> dict[str, Any]:
    if isinstance(values, _PRIMITIVES):
        raise ConfigError(
            f"Primitives {listed(kind.__name__ for kind in _PRIMITIVES)} are not allowed as hyper-parameters: {values!r} has no name. Pass "
            'a dictionary, such as {"lr": 0.1}, a namespace or a dataclass.'
        )
    if isinstance(values, Mapping):
        return dict(values)
    try:
        return as_mapping(values)
    except ConfigTypeError as error:
        raise ConfigTypeError(f"Unsupported config type of {type(values).__name__}: {error}") from error


def _warn_of_modules(hparams: Mapping[str, Any]) -> None:
    for name, value in hparams.items():
        if isinstance(value, nn.Module):
            warnings.warn(
                f"Attribute {name!r} is an instance of `nn.Module` and is already saved during checkpointing. It is not kept among the "
                f"hyper-parameters of a checkpoint; leave it out: self.save_hyperparameters(ignore=[{name!r}]).",
                stacklevel=4,
            )


def _copied(value: Any) -> Any:
    """Return a deep copy; of a module, and of what refuses to be copied (a lock, an open file), the thing itself."""
    if isinstance(value, nn.Module):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - any object of the user's, whose copying is its own affair
        return value
