"""`LearningRateFinder` and `Tuner.lr_find` on a real small problem."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError, StateError
from leyden.trainer import LightningModule
from leyden.trainer.callbacks import LearningRateFinder, ModelCheckpoint
from leyden.trainer.tuner import Tuner
from tests.integration.trainer.test_trial import everything, fitted
from tests.support.training_state import assert_same_tree
from tests.support.tunable import Tunable, dataset, fresh, trainer_for

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Plane(LightningModule):
    """A problem whose answer is known: least squares by gradient descent on all points at once, which diverges above a rate."""

    def __init__(self, lr: float | None = 1e-3) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> Any:
        return DataLoader(dataset(), batch_size=64)


class Data:
    """Serves as a data module, and has the learning rate."""

    learning_rate = 0.5

    def train_dataloader(self) -> Any:
        return DataLoader(dataset(), batch_size=8)


def loss_after(rate: float, steps: int = 30) -> float:
    torch.manual_seed(0)
    module = Plane(rate)
    trainer = trainer_for(Path(), max_steps=steps, max_epochs=-1)
    trainer.fit(module)
    with torch.no_grad():
        return float(module.training_step(dataset()[:], 0))


def test_the_suggestion_learns_better_than_rates_far_from_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Plane()
    sweep = Tuner(trainer_for(tmp_path)).lr_find(module, min_lr=1e-5, max_lr=10)
    assert sweep is not None
    rate = sweep.suggestion()
    assert rate == module.lr
    assert 1e-3 < rate < 0.5
    assert loss_after(rate) < min(loss_after(rate / 30), loss_after(0.01 / 30), loss_after(5.0, steps=5))


def test_results_are_rates_and_smoothed_losses(tmp_path: Path) -> None:
    sweep = Tuner(trainer_for(tmp_path)).lr_find(fresh(), num_training=30, min_lr=1e-4, max_lr=1e-1, early_stop_threshold=None)
    assert sweep is not None
    assert set(sweep.results) == {"lr", "loss"}
    assert len(sweep.results["lr"]) == len(sweep.results["loss"]) == 30
    assert sweep.results["lr"][0] == pytest.approx(1e-4)
    assert sweep.results["lr"][-1] == pytest.approx(1e-1)
    assert sweep.results["lr"][1] / sweep.results["lr"][0] == pytest.approx(1000 ** (1 / 29))


def test_a_linear_sweep_rises_evenly(tmp_path: Path) -> None:
    sweep = Tuner(trainer_for(tmp_path)).lr_find(fresh(), num_training=11, min_lr=0.0, max_lr=1.0, mode="linear", early_stop_threshold=None)
    assert sweep is not None
    assert sweep.results["lr"] == pytest.approx([step / 10 for step in range(11)])


def test_a_sweep_ends_when_the_loss_diverges(tmp_path: Path) -> None:
    sweep = Tuner(trainer_for(tmp_path)).lr_find(Plane(), min_lr=1e-3, max_lr=100)
    assert sweep is not None
    losses = sweep.results["loss"]
    assert len(losses) < 100
    assert losses[-1] > 4 * min(losses)


def test_losses_are_whole_ones_whatever_is_accumulated(tmp_path: Path) -> None:
    options = {"num_training": 3, "early_stop_threshold": None, "max_lr": 1e-7}
    plain = Tuner(trainer_for(tmp_path)).lr_find(Plane(), **options)
    torch.manual_seed(1)
    module, trainer = Plane(), trainer_for(tmp_path, accumulate_grad_batches=4)
    module.train_dataloader = lambda: DataLoader(dataset(), batch_size=16)
    several = Tuner(trainer).lr_find(module, **options)
    assert plain is not None
    assert several is not None
    assert len(several.results["lr"]) == 3
    assert sum(several.results["loss"]) / sum(plain.results["loss"]) == pytest.approx(1, abs=0.6)


def test_a_fit_with_a_finder_that_only_looks_is_the_fit_without_it_bit_for_bit(tmp_path: Path) -> None:
    finder = LearningRateFinder(update_attr=False, num_training_steps=20)
    assert_same_tree(fitted(tmp_path, finder), fitted(tmp_path))
    assert finder.optimal_lr is not None
    assert len(finder.optimal_lr.results["lr"]) == 20


def test_a_fit_with_a_finder_is_the_fit_with_the_rate_it_found_bit_for_bit(tmp_path: Path) -> None:
    module, finder = fresh(), LearningRateFinder(num_training_steps=30)
    trainer = trainer_for(tmp_path, finder)
    trainer.fit(module)
    assert finder.optimal_lr is not None
    rate = finder.optimal_lr.suggestion()
    assert module.hparams.lr == rate != 0.01
    other, plain = fresh(lr=rate), trainer_for(tmp_path)
    plain.fit(other)
    assert_same_tree(everything(module, trainer), everything(other, plain))


@pytest.mark.filterwarnings("ignore:Found .* module")
def test_a_tuner_leaves_nothing_but_the_attribute(tmp_path: Path) -> None:
    module, trainer = fresh(), trainer_for(tmp_path, ModelCheckpoint(tmp_path), logger=None, enable_checkpointing=None, max_epochs=1)
    before, callbacks = dict(module.state_dict()), list(trainer.callbacks)
    module.eval()
    random = torch.get_rng_state()
    Tuner(trainer).lr_find(module, num_training=20)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_tree(dict(module.state_dict()), before)
    assert list(trainer.callbacks) == callbacks
    assert trainer.global_step == 0
    assert trainer.state.finished
    assert not module.training
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_attribute_may_have_another_name_or_lie_in_the_data_module(tmp_path: Path) -> None:
    module = Plane()
    module.rate = 0.5
    Tuner(trainer_for(tmp_path)).lr_find(module, attr_name="rate", num_training=20)
    assert module.rate != 0.5
    assert module.lr == 1e-3
    data = Data()
    module = Plane()
    del module.lr
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=data.learning_rate)
    Tuner(trainer_for(tmp_path)).lr_find(module, datamodule=data, num_training=20)
    assert data.learning_rate != 0.5


def test_rates_are_found_anew_in_later_epochs(tmp_path: Path) -> None:
    class AtEpochs(LearningRateFinder):
        found: list[Any]

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self.found = []

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.lr_find(trainer, pl_module)
            self.found.append(pl_module.hparams.lr)
            assert trainer.optimizers[0].param_groups[0]["lr"] == pl_module.hparams.lr

    finder = AtEpochs(num_training_steps=20, min_lr=1e-4)
    trainer = trainer_for(tmp_path, finder)
    trainer.fit(fresh())
    assert len(finder.found) == 2
    assert trainer.global_step == 16
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(finder.found[-1] / 2)  # of the schedule


def test_a_resumed_run_keeps_its_rate_and_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    whole, saver = fresh(), ModelCheckpoint(tmp_path, save_top_k=-1)
    trainer = trainer_for(tmp_path, LearningRateFinder(num_training_steps=20), saver, enable_checkpointing=None)
    trainer.fit(whole)
    finder, module = LearningRateFinder(num_training_steps=20), fresh()
    resumed = trainer_for(tmp_path, finder)
    with pytest.warns(UserWarning, match="Please add the following callbacks"):
        resumed.fit(module, ckpt_path=tmp_path / "epoch=0-step=8.ckpt")
    assert module.hparams.lr == whole.hparams.lr != 0.01
    assert finder.optimal_lr is not None
    assert_same_tree(dict(module.state_dict()), dict(whole.state_dict()))
    assert_same_tree(resumed.optimizers[0].state_dict(), trainer.optimizers[0].state_dict())


def test_the_plot_is_a_picture_with_the_suggestion(tmp_path: Path) -> None:
    mpl.use("Agg")
    torch.manual_seed(0)
    sweep = Tuner(trainer_for(tmp_path)).lr_find(Plane(), min_lr=1e-5, max_lr=10)
    assert sweep is not None
    figure = sweep.plot(suggest=True)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("Learning rate", "Loss", "log")
    curve, mark = axes.lines
    assert list(curve.get_ydata()) == sweep.results["loss"]
    assert list(mark.get_xdata()) == [sweep.suggestion()]
    assert sweep.plot(ax=axes) is figure
    figure.savefig(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_a_rate_found_in_another_process_is_set_here_too(tmp_path: Path) -> None:
    module = fresh()
    trainer = trainer_for(tmp_path, strategy="ddp_fork", devices=1)
    sweep = Tuner(trainer).lr_find(module, num_training=20)
    assert sweep is not None
    assert module.hparams.lr == sweep.suggestion() != 0.01
    assert len(sweep.results["lr"]) == 20


def test_fast_dev_run_skips_the_finder(tmp_path: Path) -> None:
    module = fresh()
    with pytest.warns(UserWarning, match="Skipping learning rate finder since `fast_dev_run` is enabled"):
        assert Tuner(trainer_for(tmp_path, fast_dev_run=True)).lr_find(module) is None
    assert module.hparams.lr == 0.01


def test_too_few_points_make_no_suggestion_and_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = fresh()
    sweep = Tuner(trainer_for(tmp_path)).lr_find(module, num_training=12)
    assert sweep is not None
    assert sweep.suggestion() is None
    assert module.hparams.lr == 0.01
    assert "Failed to compute suggestion for learning rate because there are not enough points" in caplog.text


def test_a_module_without_the_attribute_is_refused(tmp_path: Path) -> None:
    module = Plane()
    del module.lr
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(AttributeError, match=r"should have one of these fields: \('lr', 'learning_rate'\)"):
        Tuner(trainer_for(tmp_path)).lr_find(module)
    with pytest.raises(AttributeError, match="The attribute name for the learning rate was set to 'rate'"):
        Tuner(trainer_for(tmp_path)).lr_find(module, attr_name="rate")
    assert Tuner(trainer_for(tmp_path)).lr_find(module, update_attr=False, num_training=3) is not None


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    module = Plane()
    module.automatic_optimization = False
    module.configure_optimizers = lambda: [torch.optim.SGD(module.parameters(), lr=0.1) for _ in range(2)]
    with pytest.raises(ConfigError, match="only works with a single optimizer"):
        Tuner(trainer_for(tmp_path)).lr_find(module)


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_a_module_without_an_optimizer_is_refused(tmp_path: Path) -> None:
    module = Plane()
    module.configure_optimizers = lambda: None
    with pytest.raises(ConfigError, match="no optimizer with a learning rate"):
        Tuner(trainer_for(tmp_path)).lr_find(module)


def test_a_step_that_returns_no_loss_is_refused(tmp_path: Path) -> None:
    class Silent(Tunable):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.optimizers().step()

    with pytest.raises(StateError, match="needs the loss of each step"):
        Tuner(trainer_for(tmp_path)).lr_find(Silent())


def test_a_trainer_with_a_finder_and_other_methods_than_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Trainer is already configured with a `LearningRateFinder` callback"):
        Tuner(trainer_for(tmp_path, LearningRateFinder())).lr_find(Plane())
    with pytest.raises(ConfigError, match="method='validate' is an invalid configuration to run `lr_find`"):
        Tuner(trainer_for(tmp_path)).lr_find(Plane(), method="validate")
    with pytest.raises(ConfigError, match="please consider setting `train_dataloaders` and `val_dataloaders` instead"):
        Tuner(trainer_for(tmp_path)).lr_find(Plane(), dataloaders=[])
