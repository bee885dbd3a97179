"""`BatchSizeFinder` and `Tuner.scale_batch_size` on a module whose memory ends at a known batch size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule
from leyden.trainer.callbacks import BatchSizeFinder, ModelCheckpoint
from leyden.trainer.tuner import Tuner
from tests.integration.trainer.test_trial import everything
from tests.support.training_state import assert_same_tree
from tests.support.tunable import Tunable, TunableData, dataset, fresh, trainer_for

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.mark.parametrize(
    ("mode", "margin", "found"), [("power", 0.05, 16), pytest.param("binsearch", 0.0, 21, marks=pytest.mark.long), ("binsearch", 0.2, 16)]
)
def test_the_largest_size_that_fits_is_found(tmp_path: Path, mode: str, margin: float, found: int) -> None:
    module = fresh(memory=21)
    assert Tuner(trainer_for(tmp_path)).scale_batch_size(module, mode=mode, margin=margin) == found
    assert module.hparams.batch_size == found


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError("no")], ids=str)
def test_want_of_memory_has_several_faces(tmp_path: Path, error: Exception) -> None:
    class Short(Tunable):
        def loss(self, batch: Any) -> Any:
            if len(batch[0]) > 4:
                raise error
            return super().loss(batch)

    assert Tuner(trainer_for(tmp_path)).scale_batch_size(Short()) == 4


def test_a_fit_with_a_finder_is_the_fit_with_the_size_it_found_bit_for_bit(tmp_path: Path) -> None:
    module, finder = fresh(memory=21), BatchSizeFinder()
    trainer = trainer_for(tmp_path, finder)
    trainer.fit(module)
    assert finder.optimal_batch_size == 16
    assert module.sizes[-1] == 16
    other, plain = fresh(memory=21, batch_size=16), trainer_for(tmp_path)
    plain.fit(other)
    assert_same_tree(everything(module, trainer), everything(other, plain))


def test_a_tuner_leaves_nothing_but_the_attribute(tmp_path: Path) -> None:
    module, trainer = fresh(memory=21), trainer_for(tmp_path)
    before, random = dict(module.state_dict()), torch.get_rng_state()
    before = {name: value.clone() for name, value in before.items()}
    Tuner(trainer).scale_batch_size(module)
    assert_same_tree(dict(module.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(trainer.callbacks) == []
    assert trainer.global_step == 0
    assert trainer.state.finished
    assert module.training


@pytest.mark.parametrize("method", ["fit", "validate", "test", "predict"])
def test_every_method_is_tuned(tmp_path: Path, method: str) -> None:
    module, trainer = fresh(memory=21), trainer_for(tmp_path)
    assert Tuner(trainer).scale_batch_size(module, method=method) == 16
    assert module.training
    module.sizes.clear()
    getattr(trainer_for(tmp_path), method)(module)
    assert set(module.sizes) == {16}


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_an_evaluation_goes_on_with_the_size_that_was_found(tmp_path: Path, method: str) -> None:
    module = fresh(memory=21)
    found = getattr(trainer_for(tmp_path, BatchSizeFinder()), method)(module)
    assert module.sizes[-4:] == [16] * 4
    other = fresh(memory=21, batch_size=16)
    assert_same_tree(found, getattr(trainer_for(tmp_path), method)(other))


def test_the_size_may_lie_in_the_data_module_or_have_another_name(tmp_path: Path) -> None:
    class Apart(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch[0]).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = TunableData()
    assert Tuner(trainer_for(tmp_path)).scale_batch_size(Apart(), datamodule=data, max_trials=3) == 16
    assert data.batch_size == 16
    module = Apart()
    module.val_dataloader = TunableData().val_dataloader
    module.size = 1
    module.train_dataloader = lambda: DataLoader(dataset(), batch_size=module.size)
    assert Tuner(trainer_for(tmp_path)).scale_batch_size(module, batch_arg_name="size", init_val=3, max_trials=2) == module.size == 12


def test_no_batch_is_larger_than_the_data(tmp_path: Path) -> None:
    module = fresh()
    module.data = dataset(40)
    assert Tuner(trainer_for(tmp_path)).scale_batch_size(module) == 40
    assert Tuner(trainer_for(tmp_path)).scale_batch_size(module, max_val=30) == 30


def test_each_size_is_tried_for_some_steps(tmp_path: Path) -> None:
    module = fresh()
    Tuner(trainer_for(tmp_path, limit_val_batches=0)).scale_batch_size(module, steps_per_trial=2, max_trials=2)
    assert module.sizes == [2, 2, 4, 4, 8, 8]


def test_sizes_are_found_anew_in_later_epochs(tmp_path: Path) -> None:
    class AtEpochs(BatchSizeFinder):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None: ...

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.scale_batch_size(trainer, pl_module)

    module = fresh(memory=21)
    trainer = trainer_for(tmp_path, AtEpochs(), limit_val_batches=0)
    trainer.fit(module)
    assert trainer.global_step == 8 + 4
    assert trainer.num_training_batches == 4
    assert module.sizes[:8] == [8] * 8
    assert module.sizes[-4:] == [16] * 4


def test_a_resumed_run_keeps_its_size_and_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    whole = fresh(memory=21)
    trainer = trainer_for(tmp_path, BatchSizeFinder(), ModelCheckpoint(tmp_path, save_top_k=-1), enable_checkpointing=None)
    trainer.fit(whole)
    finder, module = BatchSizeFinder(), fresh(memory=21)
    resumed = trainer_for(tmp_path, finder)
    with pytest.warns(UserWarning, match="Please add the following callbacks"):
        resumed.fit(module, ckpt_path=tmp_path / "epoch=0-step=4.ckpt")
    assert module.hparams.batch_size == finder.optimal_batch_size == 16
    assert set(module.sizes) == {16}
    assert_same_tree(dict(module.state_dict()), dict(whole.state_dict()))


def test_a_device_on_which_nothing_fits_is_told(tmp_path: Path) -> None:
    module = fresh(memory=0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        Tuner(trainer_for(tmp_path)).scale_batch_size(module)
    assert "Not even a batch of size 1 fits" in caught.value.__notes__[0]
    assert module.hparams.batch_size == 8


def test_other_errors_go_through_and_the_size_is_as_before(tmp_path: Path) -> None:
    class Fails(Tunable):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if len(batch[0]) > 2:
                raise RuntimeError("shapes do not match")
            return super().training_step(batch, batch_idx)

    module = Fails()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Tuner(trainer_for(tmp_path)).scale_batch_size(module)
    assert module.hparams.batch_size == 8


def test_fast_dev_run_skips_the_finder(tmp_path: Path) -> None:
    module = fresh()
    with pytest.warns(UserWarning, match="Skipping batch size scaler since `fast_dev_run` is enabled"):
        assert Tuner(trainer_for(tmp_path, fast_dev_run=True)).scale_batch_size(module) is None
    assert module.hparams.batch_size == 8


def test_loaders_that_do_not_follow_are_warned_of(tmp_path: Path) -> None:
    module = fresh()
    module.train_dataloader = lambda: DataLoader(module.data, batch_size=8)
    with pytest.warns(UserWarning, match=r"batch_size=2 was set, but train_dataloader\(\) made batches of 8"):
        Tuner(trainer_for(tmp_path)).scale_batch_size(module, max_trials=0)


def test_two_places_for_the_size_are_warned_of_and_both_set(tmp_path: Path) -> None:
    module = fresh()
    module.batch_size = 3
    with pytest.warns(UserWarning, match=r"Field `model.batch_size` and `model.hparams.batch_size` are mutually exclusive"):
        Tuner(trainer_for(tmp_path)).scale_batch_size(module, max_trials=1)
    assert module.batch_size == module.hparams.batch_size == 4


@pytest.mark.parametrize("method", ["fit", "validate"])
def test_loaders_that_were_passed_are_refused(tmp_path: Path, method: str) -> None:
    loaders = {"train_dataloaders" if method == "fit" else "dataloaders": DataLoader(dataset())}
    with pytest.raises(ConfigError, match=rf"cannot be used with dataloaders passed directly to `.{method}\(\)`"):
        Tuner(trainer_for(tmp_path)).scale_batch_size(fresh(), method=method, **loaders)


def test_several_evaluated_loaders_are_refused(tmp_path: Path) -> None:
    class Several(Tunable):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None: ...

    module = Several()
    module.val_dataloader = lambda: [module.loader(), module.loader()]
    with pytest.raises(ConfigError, match="cannot be used with multiple val dataloaders"):
        trainer_for(tmp_path, BatchSizeFinder()).validate(module)


def test_a_module_without_the_attribute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Field samples not found in the module, the data module, nor their `hparams`"):
        Tuner(trainer_for(tmp_path)).scale_batch_size(fresh(), batch_arg_name="samples")
