from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import lazy_instance

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule, Trainer
from leyden.trainer.callbacks import EarlyStopping
from leyden.trainer.cli import LightningCLI, LRSchedulerCallable, OptimizerCallable
from leyden.trainer.demos.boring_classes import BoringDataModule, BoringModel
from tests.support.command_line import FAST, Noise, SmallNet, SmallNetWithoutOptimizer, command

QUICK = {"max_epochs": 1, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def built(words=(), *args, **kwargs):
    return command(list(words), *args, run=False, trainer_defaults={**QUICK, **kwargs.pop("trainer_defaults", {})}, **kwargs)


# -- arguments ---------------------------------------------------------------------------------------------------


def test_classes_are_built_of_their_arguments_and_nothing_runs():
    cli = built(["--model.width=6", "--data.batch_size=2", "--trainer.max_epochs=3"], SmallNet, Noise)
    assert (cli.model.width, cli.datamodule.batch_size, cli.trainer.max_epochs) == (6, 2, 3)
    assert cli.trainer.global_step == 0
    assert cli.subcommand is None


def test_any_module_and_data_module_may_be_chosen():
    cli = built(["--model=SmallNet", "--model.width=6", "--data=lightning.pytorch.demos.boring_classes.BoringDataModule"])
    assert type(cli.model) is SmallNet
    assert type(cli.datamodule) is BoringDataModule
    assert built(["--model=BoringModel"]).datamodule is None


def test_a_subclass_may_be_chosen_only_in_subclass_mode():
    assert type(built(["--model=SmallNetWithoutOptimizer"], SmallNet, subclass_mode_model=True).model) is SmallNetWithoutOptimizer
    with pytest.raises(SystemExit):
        built(["--model=SmallNetWithoutOptimizer"], SmallNet)
    with pytest.raises(SystemExit):
        built(["--model=BoringModel"], SmallNet, subclass_mode_model=True)


def test_a_function_may_stand_for_a_class():
    def narrow(width: int = 2) -> SmallNet:
        return SmallNet(width)

    def trainer(max_epochs: int = 5, callbacks: list | None = None) -> Trainer:
        return Trainer(max_epochs=max_epochs, accelerator="cpu", callbacks=callbacks)

    cli = command(["--model.width=3"], narrow, run=False, trainer_class=trainer)
    assert cli.model.width == 3
    assert cli.trainer.max_epochs == 5


def test_words_or_a_configuration_may_be_given_in_code():
    assert built([], SmallNet, args=["--model.width=6"]).model.width == 6
    assert built([], SmallNet, args={"model": {"width": 6}}).model.width == 6
    with pytest.warns(UserWarning, match="args parameter is intended to run from within Python"):
        built(["--model.width=6"], SmallNet, args=["--model.width=7"])


def test_defaults_of_the_trainer_may_be_others_and_its_callbacks_are_always_there():
    stopper = EarlyStopping("val/loss")
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "x"}}
    cli = built(
        ["--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:00:01:00"],
        SmallNet,
        trainer_defaults={"callbacks": stopper, "logger": logger},
    )
    assert stopper in cli.trainer.callbacks
    assert type(cli.trainer.logger).__name__ == "CSVLogger"
    assert cli.trainer.max_epochs == 1
    assert cli.instantiate_trainer(max_epochs=9).max_epochs == 9
    assert cli.config_init.trainer.max_epochs == 1


def test_a_trainer_without_callbacks_says_that_they_are_not_included():
    def trainer(max_epochs: int = 5) -> Trainer:
        return Trainer(max_epochs=max_epochs, accelerator="cpu")

    with pytest.warns(UserWarning, match="does not expose the `callbacks` argument so they will not be included"):
        command([], SmallNet, run=False, trainer_class=trainer)


def test_a_callback_may_have_arguments_of_its_own():
    class WithStopper(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.add_lightning_class_args(EarlyStopping, "stopper")
            parser.set_defaults({"stopper.monitor": "val/loss"})

    assert built(["--stopper.patience=7"], SmallNet, cli=WithStopper).trainer.early_stopping_callback.patience == 7


@pytest.mark.parametrize("apply_on", ["parse", "instantiate"])
def test_arguments_are_linked(apply_on):
    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.batch_size", "model.batch_size", apply_on=apply_on)

    cli = built(["--data.batch_size=12"], SmallNet, Noise, cli=Linked)
    assert cli.model.batch_size == 12
    assert cli.model.hparams.batch_size == 12


@pytest.mark.parametrize(
    ("words", "default", "seed"),
    [([], 11, 11), (["--seed_everything=5"], True, 5), (["--seed_everything=false"], 11, False), ([], False, False), ([], True, 0)],
)
def test_the_seed_is_set_and_written_into_the_configuration(words, default, seed):
    assert built(words, SmallNet, seed_everything_default=default).config.seed_everything is seed or seed


def test_a_random_layer_is_the_same_under_the_same_seed():
    one, other = (built(["--seed_everything=5"], SmallNet).model.layer.weight for _ in range(2))
    assert torch.equal(one, other)


SLOPE = lazy_instance(torch.nn.LeakyReLU, negative_slope=0.05)


def test_a_default_may_be_an_object_that_is_not_built_yet():
    class Lazy(BoringModel):
        def __init__(self, act: torch.nn.Module = SLOPE) -> None:
            super().__init__()
            self.act = act

    assert built([], Lazy).model.act.negative_slope == 0.05
    assert isinstance(built(["--model.act=Tanh"], Lazy).model.act, torch.nn.Tanh)


# -- optimizers --------------------------------------------------------------------------------------------------


def test_an_optimizer_of_the_command_line_takes_the_methods_place():
    cli = built(["--optimizer=Adam", "--optimizer.lr=0.5", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=3"], SmallNetWithoutOptimizer)
    (optimizer,), (scheduler,) = cli.model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 0.5
    assert scheduler.step_size == 3


def test_the_short_name_of_the_plateau_scheduler_is_the_one_with_a_metric():
    cli = built(
        ["--optimizer=SGD", "--optimizer.lr=1", "--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/loss"],
        SmallNetWithoutOptimizer,
    )
    assert cli.model.configure_optimizers()["lr_scheduler"]["monitor"] == "val/loss"


def test_one_class_of_optimizers_needs_no_choice():
    class WithAdam(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.add_optimizer_args(torch.optim.Adam)
            parser.add_lr_scheduler_args(torch.optim.lr_scheduler.ExponentialLR)

    cli = built(["--optimizer.lr=0.5", "--lr_scheduler.gamma=0.5"], SmallNetWithoutOptimizer, cli=WithAdam)
    (optimizer,), (scheduler,) = cli.model.configure_optimizers()
    assert optimizer.defaults["lr"] == 0.5
    assert scheduler.gamma == 0.5


def test_two_automatic_optimizers_are_refused():
    class WithTwo(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.add_optimizer_args(torch.optim.Adam, "one")
            parser.add_optimizer_args(torch.optim.SGD, "two")

    with pytest.raises(ConfigError, match="found 'one', 'two'"):
        built(["--two.lr=1", "--lr_scheduler=null"], SmallNetWithoutOptimizer, cli=WithTwo)


def test_without_automatic_optimizers_there_are_no_such_arguments():
    with pytest.raises(SystemExit):
        built(["--optimizer=Adam"], SmallNet, auto_configure_optimizers=False)


def test_makers_of_optimizers_may_be_arguments_of_the_module():
    class Makers(BoringModel):
        def __init__(
            self,
            optimizer: OptimizerCallable = torch.optim.Adam,
            scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
        ) -> None:
            super().__init__()
            self.optimizer, self.scheduler = optimizer, scheduler

    cli = built(["--model.optimizer=SGD", "--model.optimizer.lr=0.5"], Makers, auto_configure_optimizers=False)
    optimizer = cli.model.optimizer(cli.model.parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    assert isinstance(cli.model.scheduler(optimizer), torch.optim.lr_scheduler.ConstantLR)


# -- configuration files -----------------------------------------------------------------------------------------


@pytest.fixture
def two_files():
    Path("whole.yaml").write_text(
        "fit:\n  trainer: {fast_dev_run: 1, accelerator: cpu}\n  model: {width: 2, batch_size: 3}\n"
        "test:\n  trainer: {fast_dev_run: 1, accelerator: cpu}\n  model: {width: 9}\n"
    )
    Path("fit.yaml").write_text("model: {width: 5}\n")


@pytest.mark.parametrize(
    ("words", "width"),
    [
        (["--config=whole.yaml", "fit"], 2),
        (["--config=whole.yaml", "test"], 9),
        (["--config=whole.yaml", "fit", "--config=fit.yaml"], 5),
        (["--config=whole.yaml", "fit", "--config=fit.yaml", "--model.width=7"], 7),
    ],
)
def test_files_before_and_after_the_subcommand_and_words_count_in_their_order(two_files, words, width):
    assert (
        command([*words, "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"], SmallNet, Noise).model.width
        == width
    )


def test_later_files_override_earlier_ones(two_files):
    Path("more.yaml").write_text("model: {batch_size: 1}\n")
    cli = built(["--config=fit.yaml", "--config=more.yaml"], SmallNet)
    assert (cli.model.width, cli.model.batch_size) == (5, 1)


def test_files_with_defaults_are_for_all_or_for_one_subcommand(two_files):
    cli = command(["fit", *FAST], SmallNet, Noise, parser_kwargs={"default_config_files": ["whole.yaml"]})
    assert cli.model.width == 2
    cli = command(["fit", *FAST], SmallNet, Noise, parser_kwargs={"fit": {"default_config_files": ["fit.yaml"]}})
    assert cli.model.width == 5


def test_the_configuration_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        command(["fit", "--model.width=6", "--print_config"], SmallNet)
    assert not end.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"] == {"width": 6, "batch_size": 8, "act": None}
    assert "max_epochs" in printed["trainer"]


def test_help_comes_from_the_docstrings(capsys):
    for words in (["--help"], ["fit", "--help"], ["fit", "--optimizer.help=SGD"]):
        with pytest.raises(SystemExit):
            command(words, SmallNet)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Run one test epoch" in printed
    assert "Stop after so many epochs; -1 never." in printed
    assert "--optimizer.momentum" in printed or "momentum" in printed


@pytest.mark.parametrize(("words", "hint"), [(["fit", "--trainer.max_epoch=1"], "trainer.max_epochs"), (["fitt"], "fit")])
def test_a_wrong_word_ends_with_the_closest_one(words, hint, capsys):
    with pytest.raises(SystemExit) as end:
        command(words, SmallNet)
    assert end.value.code == 2
    assert f"Did you mean {hint!r}?" in capsys.readouterr().err


# -- hooks and subcommands ---------------------------------------------------------------------------------------


class Recorder(LightningCLI):
    calls: list

    def before_instantiate_classes(self):
        type(self).calls = ["before_instantiate_classes"]
        assert not hasattr(self, "model")

    def after_instantiate_classes(self):
        self.calls.append("after_instantiate_classes")
        assert self.trainer is not None

    def before_count(self):
        self.calls.append("before_count")

    def after_count(self):
        self.calls.append("after_count")

    @staticmethod
    def subcommands():
        return {**LightningCLI.subcommands(), "count": {"model"}}


class Counter(Trainer):
    def __init__(self, step: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.step = step

    def count(self, model: LightningModule, to: int, start: float = 1.0) -> None:
        """Count to a number.

        Args:
            model: Who counts.
            to: The number.
            start: Where to begin.
        """
        Recorder.calls.append((type(model).__name__, to, start, self.step))


def test_a_method_of_ones_own_trainer_is_a_subcommand_with_hooks_around_it(capsys):
    command(["count", "--to=3", "--trainer.step=2", *FAST], SmallNet, cli=Recorder, trainer_class=Counter)
    assert Recorder.calls == [
        "before_instantiate_classes",
        "after_instantiate_classes",
        "before_count",
        ("SmallNet", 3, 1.0, 2),
        "after_count",
    ]
    with pytest.raises(SystemExit):
        command(["count", "--help"], SmallNet, cli=Recorder, trainer_class=Counter)
    printed = capsys.readouterr().out
    assert "Count to a number." in printed
    assert "The number. (required" in printed


def test_a_method_of_the_command_line_takes_the_trainers_place():
    class Own(LightningCLI):
        def fit(self, model, **kwargs):
            self.seen = (model, sorted(kwargs))

    cli = command(["fit", *FAST], SmallNet, Noise, cli=Own)
    assert cli.seen == (cli.model, ["ckpt_path", "datamodule", "weights_only"])


def test_a_subcommand_must_be_chosen(capsys):
    with pytest.raises(SystemExit):
        command([], SmallNet)
    assert "{fit,validate,test,predict}" in capsys.readouterr().err


# -- what is kept ------------------------------------------------------------------------------------------------


def test_hyperparameters_are_the_configuration_and_not_the_objects():
    kept = built(["--model.act=Tanh"], SmallNet).model.hparams
    assert kept["act"]["class_path"] == "torch.nn.Tanh"
    assert kept["_instantiator"] == "leyden.trainer.cli.instantiate_module"
    chosen = built(["--model=SmallNet"]).model.hparams
    assert chosen["_class_path"].endswith(".SmallNet")
    assert chosen["width"] == 4


def test_without_support_for_loading_they_are_the_objects():
    with pytest.warns(UserWarning, match=r"'act' is an instance of `nn.Module`"):
        kept = built(["--model.act=Tanh"], SmallNet, load_from_checkpoint_support=False).model.hparams
    assert isinstance(kept["act"], torch.nn.Tanh)
    assert "_instantiator" not in kept
