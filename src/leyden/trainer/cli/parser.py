"""`LightningArgumentParser`: jsonargparse's parser, with arguments for trainers, modules, callbacks, optimizers and schedulers.

Beyond the documented methods it reads class paths of PyTorch Lightning as ours, and its errors name the closest argument.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, class_from_function, get_loader, set_loader
from torch.optim import Optimizer

from leyden import __version__ as VERSION  # noqa: N812 - a constant
from leyden.core.errors import ConfigError
from leyden.trainer.cli.callables import LRSchedulerTypeTuple
from leyden.trainer.cli.class_paths import translated, translated_word
from leyden.trainer.cli.environment import PREFIX, one_prefix
from leyden.trainer.cli.importing import import_choices
from leyden.trainer.cli.suggestions import suggestion
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer

AUTOMATIC = "AUTOMATIC"
_MODE = "leyden-yaml"


def _load(text: str) -> Any:
    return translated(get_loader("yaml")(text))


set_loader(_MODE, _load, (yaml.YAMLError,))  # a mode of our own: other parsers of the process read YAML as they did


class LightningArgumentParser(ArgumentParser):
    """A parser for command lines, configuration files and, on request, environment variables.

    Args:
        args: What jsonargparse's parser takes.
        description: The first lines of the help.
        env_prefix: What the names of environment variables begin with; `LEYDEN_` is read too, unless another one is given.
        default_env: Whether environment variables are read.
        kwargs: What jsonargparse's parser takes.
    """

    def __init__(
        self,
        *args: Any,
        description: str = "Trains, validates, tests and predicts.",
        env_prefix: str = PREFIX.rstrip("_"),
        default_env: bool = False,
        **kwargs: Any,
    ) -> None:
        import_choices()
        kwargs.setdefault("dump_header", [f"leyden=={VERSION}"])
        kwargs.setdefault("allow_abbrev", False)  # an unknown argument names the closest one instead of being taken for it
        if kwargs.get("parser_mode", "yaml") == "yaml":
            kwargs["parser_mode"] = _MODE
        self.callback_keys: list[str] = []
        self.optimizers: dict[str, tuple[Any, str]] = {}
        self.lr_schedulers: dict[str, tuple[Any, str]] = {}
        super().__init__(*args, description=description, env_prefix=env_prefix, default_env=default_env, **kwargs)
        self.add_argument("-c", "--config", action=ActionConfigFile, help="Path to a configuration file in json or yaml format.")

    # -- arguments -----------------------------------------------------------------------------------------------

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """Add the arguments of a class.

        Args:
            lightning_class: A `Trainer`, `LightningModule`, `LightningDataModule` or `Callback` class, or a function that
                returns an object of one.
            nested_key: The key that they lie under.
            subclass_mode: Whether any subclass may be chosen.
            required: Whether one must be chosen, in subclass mode.

        Returns:
            The names that were added.

        Raises:
            ConfigError: Another class.
        """
        kind = lightning_class
        if callable(kind) and not isinstance(kind, type):
            kind = class_from_function(kind)
        if not (isinstance(kind, type) and issubclass(kind, (Trainer, LightningModule, LightningDataModule, Callback))):
            raise ConfigError(
                f"Cannot add arguments from: {lightning_class!r}. You should provide either a callable or a subclass of: Trainer, "
                "LightningModule, LightningDataModule, or Callback."
            )
        if issubclass(kind, Callback):
            self.callback_keys.append(nested_key)
        if subclass_mode:
            self.add_subclass_arguments(kind, nested_key, fail_untyped=False, required=required)
            return [nested_key]
        return list(
            self.add_class_arguments(kind, nested_key, fail_untyped=False, instantiate=not issubclass(kind, Trainer), sub_configs=True)
        )

    def add_optimizer_args(self, optimizer_class: Any = (Optimizer,), nested_key: str = "optimizer", link_to: str = AUTOMATIC) -> None:
        """Add the arguments of an optimizer.

        Args:
            optimizer_class: A class, or a tuple of classes any subclass of which may be chosen.
            nested_key: The key that they lie under.
            link_to: The argument of the module that gets them as `{"class_path": …, "init_args": …}`; `"AUTOMATIC"` builds the
                optimizer in `configure_optimizers`.
        """
        self._add_maker(optimizer_class, nested_key, skip="params")
        self.optimizers[nested_key] = (optimizer_class, link_to)

    def add_lr_scheduler_args(
        self, lr_scheduler_class: Any = LRSchedulerTypeTuple, nested_key: str = "lr_scheduler", link_to: str = AUTOMATIC
    ) -> None:
        """Add the arguments of a learning rate scheduler.

        Args:
            lr_scheduler_class: A class, or a tuple of classes any subclass of which may be chosen.
            nested_key: The key that they lie under.
            link_to: The argument of the module that gets them as `{"class_path": …, "init_args": …}`; `"AUTOMATIC"` builds the
                scheduler in `configure_optimizers`.
        """
        self._add_maker(lr_scheduler_class, nested_key, skip="optimizer")
        self.lr_schedulers[nested_key] = (lr_scheduler_class, link_to)

    def _add_maker(self, kind: Any, nested_key: str, *, skip: str) -> None:
        if isinstance(kind, tuple):
            self.add_subclass_arguments(kind, nested_key, instantiate=False, fail_untyped=False, skip={skip})
        else:
            self.add_class_arguments(kind, nested_key, instantiate=False, fail_untyped=False, skip={skip}, sub_configs=True)

    def link_makers(self) -> None:
        """Hand optimizers and schedulers that are linked to arguments of the module over to them."""
        for key, (kind, link_to) in {**self.optimizers, **self.lr_schedulers}.items():
            if link_to != AUTOMATIC:
                self.link_arguments(key, link_to, compute_fn=None if isinstance(kind, tuple) else ClassPathAdder(kind))

    # -- parsing -------------------------------------------------------------------------------------------------

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override] - the same
        words = [translated_word(word) if isinstance(word, str) else word for word in (sys.argv[1:] if args is None else args)]
        with self._environment(kwargs):
            return super().parse_args(words, *rest, **kwargs)

    def parse_object(self, obj: Any, *args: Any, **kwargs: Any) -> Namespace:  # pyrefly: ignore[bad-override] - the same arguments
        plain = obj.as_dict() if isinstance(obj, Namespace) else obj
        with self._environment(kwargs):
            return super().parse_object(translated(plain), *args, **kwargs)

    def set_defaults(self, *args: dict[str, Any], **kwargs: Any) -> None:
        super().set_defaults(*map(translated, args), **translated(kwargs))

    def _environment(self, kwargs: dict[str, Any]) -> Any:
        reads = kwargs.get("env") or (kwargs.get("env") is None and self.default_env)
        is_root = not hasattr(self, "parent_parser")
        return one_prefix(set(self._variables())) if reads and is_root and self.env_prefix == PREFIX.rstrip("_") else nullcontext()

    def _variables(self) -> Iterator[str]:
        for action in self._actions:
            if action.dest not in ("help", "==SUPPRESS=="):
                yield f"{self.env_prefix}_{action.dest}".replace(".", "__").upper()
        for parser in self._commands().values():
            yield from parser._variables()

    def _commands(self) -> dict[str, "LightningArgumentParser"]:
        return dict(self._subcommands_action.choices) if self._subcommands_action is not None else {}

    # -- errors --------------------------------------------------------------------------------------------------

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        hint = suggestion(message, set(self._names()))
        if hint and hint not in message:  # an error of a subcommand's parser passes through the main one too
            message = f"{message.rstrip('.')}.{hint}"
        super().error(message, ex)

    def _names(self, prefix: str = "") -> Iterator[str]:
        for action in self._actions:
            if action.option_strings:
                yield prefix + action.dest
        for command, parser in self._commands().items():
            yield from parser._names(f"{prefix}{command}.")


class ClassPathAdder:
    """Makes `{"class_path": …, "init_args": …}` of the arguments of a class that was given.

    Args:
        kind: The class.
    """

    def __init__(self, kind: Callable[..., Any]) -> None:
        self.kind = kind

    def __call__(self, init_args: Any) -> dict[str, Any]:
        values = init_args.as_dict() if isinstance(init_args, Namespace) else dict(init_args)
        return {"class_path": f"{self.kind.__module__}.{self.kind.__qualname__}", "init_args": values}
