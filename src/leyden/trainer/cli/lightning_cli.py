"""`LightningCLI`: reads a command line and configuration files, builds trainer, module and data module, and runs.

```
parser (subcommands, or one) → config → seed → model, data, trainer → before_<command> → <command> → after_<command>
```

What the user's subclass may override has the documented names; how configurations become objects is in the modules beside.
"""

import sys
from collections.abc import Callable
from typing import Any

import yaml
from jsonargparse import Namespace, class_from_function
from torch.optim import Optimizer

from leyden.core import settings
from leyden.fabric import seed_everything
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.cli import checkpoint_defaults
from leyden.trainer.cli.automatic import automatic, check_at_most_one, init_of, take_over
from leyden.trainer.cli.callables import ArgsType, ReduceLROnPlateau
from leyden.trainer.cli.instantiate import class_of, keeping
from leyden.trainer.cli.parser import LightningArgumentParser
from leyden.trainer.cli.save_config import SaveConfigCallback
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer


class LightningCLI:
    """A command line made from the signatures of a module, a data module and the trainer; parses and runs at once.

    Args:
        model_class: The module's class, or a function that returns a module. `None`: any module, chosen by `--model`.
        datamodule_class: The data module's class, or a function. `None`: any, chosen by `--data`, or none.
        save_config_callback: What saves the configuration; `None` for nothing.
        save_config_kwargs: Arguments for it: `{"overwrite": True}`.
        trainer_class: The trainer's class, or a function that returns a trainer.
        trainer_defaults: Other defaults for its arguments. `callbacks` are always there, beside those of the configuration.
        seed_everything_default: The seed, `True` for `LEYDEN_GLOBAL_SEED` or else 0, `False` for none; `--seed_everything` changes it.
        parser_kwargs: Arguments for the parser, or a dictionary of such per subcommand: `{"fit": {"default_config_files": …}}`.
        parser_class: The parser's class.
        subclass_mode_model: Whether any subclass of `model_class` may be chosen.
        subclass_mode_data: Whether any subclass of `datamodule_class` may be chosen.
        args: The words of the command line, or a configuration; default: those of the program.
        run: Whether there are subcommands, one of which runs. `False`: parse and build, then leave it to you.
        auto_configure_optimizers: Whether `--optimizer` and `--lr_scheduler` may take the place of `configure_optimizers`.
        load_from_checkpoint_support: Whether hyper-parameters are kept as configured, so that `load_from_checkpoint` can build
            objects among them again.

    Example:
        ```python
        # main.py: python main.py fit --model.width=64 --trainer.max_epochs=3
        LightningCLI(Model, DataModule)
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        model_class: type[LightningModule] | Callable[..., LightningModule] | None = None,
        datamodule_class: type[LightningDataModule] | Callable[..., LightningDataModule] | None = None,
        save_config_callback: type[SaveConfigCallback] | None = SaveConfigCallback,
        save_config_kwargs: dict[str, Any] | None = None,
        trainer_class: type[Trainer] | Callable[..., Trainer] = Trainer,
        trainer_defaults: dict[str, Any] | None = None,
        seed_everything_default: bool | int = True,
        parser_kwargs: dict[str, Any] | None = None,
        parser_class: type[LightningArgumentParser] = LightningArgumentParser,
        subclass_mode_model: bool = False,
        subclass_mode_data: bool = False,
        args: ArgsType = None,
        run: bool = True,
        auto_configure_optimizers: bool = True,
        load_from_checkpoint_support: bool = True,
    ) -> None:
        self.model_class = _as_class(model_class or LightningModule)
        self.datamodule_class = _as_class(datamodule_class or LightningDataModule)
        self.needs_data = datamodule_class is not None
        self.save_config_callback = save_config_callback
        self.save_config_kwargs = save_config_kwargs or {}
        self.trainer_class = _as_class(trainer_class)
        self.trainer_defaults = trainer_defaults or {}
        self.seed_everything_default = seed_everything_default
        self.parser_kwargs = parser_kwargs or {}
        self.parser_class = parser_class
        self.subclass_mode_model = subclass_mode_model or model_class is None
        self.subclass_mode_data = subclass_mode_data or datamodule_class is None
        self.auto_configure_optimizers = auto_configure_optimizers
        self.load_from_checkpoint_support = load_from_checkpoint_support
        self.subcommand_parsers: dict[str, LightningArgumentParser] = {}
        self._method_arguments: dict[str, list[str]] = {}

        main_kwargs, subparser_kwargs = self._setup_parser_kwargs(self.parser_kwargs)
        self.setup_parser(run, main_kwargs, subparser_kwargs)
        has_defaults = run and self._default_to_checkpoint(args)
        self.parse_arguments(self.parser, args)
        self.subcommand: str | None = self.config["subcommand"] if run else None
        if self.subcommand and not has_defaults:
            self._default_to_configured_checkpoint(args)
        self._set_seed()
        self.before_instantiate_classes()
        self.instantiate_classes()
        self.after_instantiate_classes()
        if self.subcommand:
            self._run_subcommand(self.subcommand)

    # -- parser --------------------------------------------------------------------------------------------------

    def _setup_parser_kwargs(self, parser_kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of the main parser, and those of each subcommand's."""
        commands = self.subcommands().keys()
        main = {key: value for key, value in parser_kwargs.items() if key not in commands}
        return main, {key: value for key, value in parser_kwargs.items() if key in commands}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a new parser."""
        return self.parser_class(**kwargs)

    def setup_parser(self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]) -> None:
        """Build the parser, with subcommands or without."""
        self.parser = self.init_parser(**main_kwargs)
        if not add_subcommands:
            self._add_arguments(self.parser)
            return
        commands = self.parser.add_subcommands()
        for name in self.subcommands():
            help_line = _first_line(getattr(self.trainer_class, name))
            parser = self.init_parser(**{"description": help_line, **subparser_kwargs.get(name, {})})
            self._add_arguments(parser)
            arguments = parser.add_method_arguments(self.trainer_class, name, skip=set(self.subcommands()[name]))
            self._method_arguments[name] = arguments
            self.subcommand_parsers[name] = parser
            commands.add_subcommand(name, parser, help=help_line)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods that are subcommands, each with the arguments that are no options."""
        loaders = {"model", "dataloaders", "datamodule"}
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": loaders,
            "test": loaders,
            "predict": loaders | {"stream"},  # an iterator would have nobody to consume it
        }

    def _add_arguments(self, parser: LightningArgumentParser) -> None:
        self.add_core_arguments_to_parser(parser)
        self.add_arguments_to_parser(parser)
        if self.auto_configure_optimizers:
            if not parser.optimizers:
                parser.add_optimizer_args()
            if not parser.lr_schedulers:
                parser.add_lr_scheduler_args()
        parser.link_makers()

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, and the arguments of trainer, module and data module."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="The seed, for seed_everything before anything is built; true: LEYDEN_GLOBAL_SEED, else 0; false: none.",
        )
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items() if name != "callbacks"})
        parser.add_lightning_class_args(self.model_class, "model", subclass_mode=self.subclass_mode_model)
        parser.add_lightning_class_args(self.datamodule_class, "data", subclass_mode=self.subclass_mode_data, required=self.needs_data)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add arguments of your own, link arguments, set defaults. Override it; called for each subcommand's parser.

        Example:
            ```python
            def add_arguments_to_parser(self, parser):
                parser.link_arguments("data.batch_size", "model.batch_size")
                parser.set_defaults({"model.width": 64})
            ```
        """

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse into `config`."""
        if args is not None and len(sys.argv) > 1:
            rank_zero_warn(
                "LightningCLI's args parameter is intended to run from within Python like if it were from the command line. To prevent "
                "mistakes it is not recommended to provide both args and command line arguments, got: "
                f"sys.argv[1:]={sys.argv[1:]}, args={args}.",
                stacklevel=4,
            )
        self.config: Namespace = parser.parse_object(args) if isinstance(args, (dict, Namespace)) else parser.parse_args(args)

    def _default_to_checkpoint(self, args: ArgsType) -> bool:
        """Take over defaults from the checkpoint that the words name, before they are parsed: a module may be missing there."""
        named = checkpoint_defaults.named_in(sys.argv[1:] if args is None else args, self.subcommands())
        if named is None:
            return False
        command, ckpt_path = named
        hparams = checkpoint_defaults.kept_in(ckpt_path)
        return bool(hparams) and checkpoint_defaults.set_defaults(self.subcommand_parsers[command], hparams)

    def _default_to_configured_checkpoint(self, args: ArgsType) -> None:
        """Take over defaults from the checkpoint that a configuration file or the environment names, and parse again."""
        hparams = checkpoint_defaults.kept_in(self._get(self.config, "ckpt_path"))
        if not hparams:
            return
        checkpoint_defaults.set_defaults(self._parser(), hparams, self._own(self.config))
        self.config = self.parser.parse_object(args) if isinstance(args, (dict, Namespace)) else self.parser.parse_args(args)

    # -- objects -------------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Run something before module, data module and trainer are built. Override it."""

    def after_instantiate_classes(self) -> None:
        """Run something after module, data module and trainer were built. Override it."""

    def instantiate_classes(self) -> None:
        """Build `model`, `datamodule` and `trainer`."""
        self.config_init: Namespace = self.parser.instantiate(self.config, instantiators=self._instantiators())
        self.datamodule: Any = self._get(self.config_init, "data")
        self.model: Any = self._get(self.config_init, "model")
        self._take_over_optimizers()
        self.trainer: Any = self.instantiate_trainer()

    def _instantiators(self) -> list[tuple[Callable[..., Any], type, bool]]:
        if not self.load_from_checkpoint_support:
            return []
        plain = yaml.safe_load(self.parser.dump(self.config, format="yaml", skip_link_targets=False, skip_unset=False))
        found = []
        for key, kind in (("model", self.model_class), ("data", self.datamodule_class)):
            own = self._get(plain, key)
            if own:
                chosen = class_of(own) if "class_path" in own else kind
                found.append((keeping(own, chosen), chosen, False))
        return found

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Return a new trainer of the configuration.

        Args:
            kwargs: Arguments in place of configured ones.
        """
        callbacks = [callback for key in self._parser().callback_keys if (callback := self._get(self.config_init, key)) is not None]
        config = {**dict(self._get(self.config_init, "trainer") or Namespace().as_dict()), **kwargs}
        return self._instantiate_trainer(config, callbacks)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Any:
        if "callbacks" not in config:
            rank_zero_warn(
                f"The `{self.trainer_class.__name__}` class does not expose the `callbacks` argument so they will not be included.",
                stacklevel=4,
            )
            return self.trainer_class(**config)
        wanted = [*_as_list(config["callbacks"]), *callbacks, *_as_list(self.trainer_defaults.get("callbacks"))]
        if self.save_config_callback and not config.get("fast_dev_run", False):
            wanted.append(self.save_config_callback(self._parser(), self._own(self.config), **self.save_config_kwargs))
        return self.trainer_class(**{**config, "callbacks": wanted})

    def _take_over_optimizers(self) -> None:
        if not self.auto_configure_optimizers:
            return
        parser = self._parser()
        optimizers, schedulers = automatic(parser.optimizers), automatic(parser.lr_schedulers)
        check_at_most_one(optimizers, schedulers)
        optimizer = init_of(parser.optimizers[optimizers[0]][0], self._get(self.config_init, optimizers[0])) if optimizers else None
        if optimizer is None:
            return
        scheduler = init_of(parser.lr_schedulers[schedulers[0]][0], self._get(self.config_init, schedulers[0])) if schedulers else None
        take_over(self.model, type(self).configure_optimizers, optimizer, scheduler, type(self).__name__)

    @staticmethod
    def configure_optimizers(lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None) -> Any:
        """Return what the trainer gets from `configure_optimizers`, of the configured optimizer and scheduler. Override it."""
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "monitor": lr_scheduler.monitor}}
        return [optimizer], [lr_scheduler]

    # -- running -------------------------------------------------------------------------------------------------

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if seed is None or seed is False:
            return
        if seed is True:  # the same on all ranks, and no reason for a warning: nobody forgot it
            seed = settings.get("LEYDEN_GLOBAL_SEED") or 0
        self._own(self.config)["seed_everything"] = seed_everything(seed, workers=True)

    def _run_subcommand(self, subcommand: str) -> None:
        getattr(self, f"before_{subcommand}", _nothing)()
        run = getattr(self, subcommand, None) or getattr(self.trainer, subcommand)
        run(**self._prepare_subcommand_kwargs(subcommand))
        getattr(self, f"after_{subcommand}", _nothing)()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Return the arguments for the trainer's method: the options of the command line, module and data module."""
        options = self.config_init[subcommand]
        kwargs = {name: options[name] for name in self._method_arguments[subcommand] if name in options}
        kwargs["model"] = self.model
        if self.datamodule is not None:
            kwargs["datamodule"] = self.datamodule
        return kwargs

    def _get(self, config: Any, key: str, default: Any = None) -> Any:
        """Return a value of the configuration, of the subcommand's part if there are subcommands."""
        own = self._own(config)
        return default if own is None else own.get(key, default)

    def _own(self, config: Any) -> Any:
        return config if self.subcommand is None else config.get(self.subcommand)

    def _parser(self, subcommand: str | None = None) -> LightningArgumentParser:
        """Return the parser of the subcommand; the only one if there are none."""
        name = subcommand or self.subcommand
        return self.parser if name is None else self.subcommand_parsers[name]


def _as_class(kind: Any) -> Any:
    return kind if isinstance(kind, type) else class_from_function(kind)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _nothing() -> None:
    return None
