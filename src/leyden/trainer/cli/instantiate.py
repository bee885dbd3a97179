"""Objects out of configurations: an optimizer of `{"class_path": …, "init_args": …}`, a module of what a checkpoint keeps.

A module built from a configuration keeps that configuration as its hyper-parameters, plain data, and not the objects that
were made of it. Its checkpoint says so (`_instantiator`), and `load_from_checkpoint` builds the objects again.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from leyden.core.errors import ConfigError, listed
from leyden.trainer.cli.class_paths import translated
from leyden.trainer.core.hparams import giving

INSTANTIATOR, CLASS_PATH = "_instantiator", "_class_path"
INSTANTIATE_MODULE = "leyden.trainer.cli.instantiate_module"


def instantiate_class(args: Any, init: Mapping[str, Any]) -> Any:
    """Return an object of the class that a configuration names.

    Args:
        args: What the constructor gets first: a tuple, or one value.
        init: `class_path`, and `init_args` if there are any.

    Raises:
        ConfigError: There is no such class.

    Example:
        >>> instantiate_class((), {"class_path": "fractions.Fraction", "init_args": {"numerator": 3}})
        Fraction(3, 1)
    """
    positional = args if isinstance(args, tuple) else (args,)
    return class_of(init)(*positional, **(init.get("init_args") or {}))


def class_of(config: Mapping[str, Any]) -> Any:
    """Return the class that a configuration names.

    Raises:
        ConfigError: It names none, or there is none of that name.
    """
    path = config.get("class_path")
    if not isinstance(path, str):
        raise ConfigError(f'The configuration of an object has the keys "class_path" and "init_args"; this has {listed(config)}.')
    module, _, name = translated(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"class_path={path!r} names no class ({error}). Write it as package.module.Class.") from error


def keeping(config: Mapping[str, Any], kind: type) -> Callable[..., Any]:
    """Return what builds objects, and lets one of `kind` keep a configuration as its hyper-parameters.

    Args:
        config: `class_path` and `init_args`, or arguments.
        kind: Whose configuration it is; objects of other classes that are built on the way keep their own arguments.
    """

    def build(class_type: type, *args: Any, applied_instantiation_links: Mapping[str, Any], **kwargs: Any) -> Any:
        if class_type is not kind:
            return class_type(*args, **kwargs)
        linked = {key.rpartition(".")[2]: value for key, value in applied_instantiation_links.items()}
        linked = {name: value for name, value in linked.items() if name in kwargs}  # a link's value is in no configuration
        with giving({**_flat(config), **linked, INSTANTIATOR: INSTANTIATE_MODULE}, of=kind):
            return class_type(*args, **kwargs)

    return build


def instantiate_module(class_type: Any, config: Mapping[str, Any]) -> Any:
    """Return a module or data module of what a checkpoint written under `LightningCLI` keeps.

    Args:
        class_type: The class whose `load_from_checkpoint` was called.
        config: Arguments; where a subclass was chosen, its path lies among them as `_class_path`.

    Raises:
        ConfigError: They do not fit the class.
    """
    parser = ArgumentParser(exit_on_error=False)
    values = translated(_flat(config))
    path = values.pop(CLASS_PATH, None)
    kind = class_type if path is None else class_of({"class_path": path})
    if path is None:
        parser.add_class_arguments(class_type, "module", fail_untyped=False)
    else:
        parser.add_subclass_arguments(class_type, "module", fail_untyped=False, required=True)
    own = values if path is None else {"class_path": path, "init_args": values}
    try:
        parsed = parser.parse_object({"module": own})
    except ArgumentError as error:
        raise ConfigError(
            f"The hyper-parameters kept in the checkpoint do not fit {kind.__name__}: {error}. Pass those that changed to "
            f"{class_type.__name__}.load_from_checkpoint."
        ) from error
    return parser.instantiate(parsed, instantiators=[(keeping(own, kind), kind, False)]).module


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as arguments, with the class that was chosen among them."""
    values = {key: value for key, value in config.items() if key != INSTANTIATOR}
    if not isinstance(values.get("class_path"), str):
        return values
    own = {CLASS_PATH: values.pop("class_path"), **(values.pop("init_args", None) or {}), **(values.pop("dict_kwargs", None) or {})}
    return own | values  # what the caller of `load_from_checkpoint` gave stands beside
