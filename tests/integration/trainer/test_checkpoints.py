"""What is in a checkpoint, which one `ckpt_path` means, and what is said about one that does not fit."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, CorruptDataError, StateError
from leyden.fabric.plugins import AsyncCheckpointIO
from leyden.trainer import Trainer
from leyden.trainer.callbacks import ModelCheckpoint
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.demos.boring_classes import BoringModel
from tests.support.scripted_fit import Scripted, fit, loader, step_of, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
    "ignore:Be aware that when using `ckpt_path`",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of two epochs, four batches each."""
    fit(tmp_path, max_epochs=2, enable_checkpointing=False).save_checkpoint(tmp_path / "saved.ckpt")
    return tmp_path / "saved.ckpt"


def resume(path: Any, module: Scripted | None = None, root: Path | None = None, *callbacks: Any, **options: Any) -> Any:
    place = root or Path(path).parent
    return fit(place, *callbacks, module=module, ckpt_path=path, **{"enable_checkpointing": False, **options})


# -- what does not fit -------------------------------------------------------------------------------------------


class Wider(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)


class Renamed(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("module", "words"),
    [(Wider(), r"size mismatch for layer.weight: \(1, 4\)"), (Renamed(), "Missing key.*layers.weight.*Did you mean 'layer.weight'")],
)
def test_another_model_is_refused_and_left_alone(saved: Path, module: Scripted, words: str) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(StateError, match=words):
        resume(saved, module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_strict_loading_can_be_switched_off(saved: Path) -> None:
    module = Renamed()
    module.strict_loading = False
    assert trainer_for(saved.parent).validate(module, loader(), ckpt_path=saved)


def test_another_number_of_loaders_is_refused(tmp_path: Path) -> None:
    cut_in_epoch(tmp_path)
    trainer = trainer_for(tmp_path, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=r"had 1 loaders here, this one has 2.*another train loader"):
        trainer.fit(TakesTwo(), [loader(), loader()], ckpt_path=tmp_path / "cut.ckpt")


class TakesTwo(Scripted):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch[0], batch_idx)


def test_loaders_of_another_length_are_refused_with_both_lengths(tmp_path: Path) -> None:
    cut_in_epoch(tmp_path)
    trainer = trainer_for(tmp_path, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=r"train\.0.*8 samples.*10 now"):
        trainer.fit(Scripted(), loader(5), ckpt_path=tmp_path / "cut.ckpt")


def cut_in_epoch(root: Path) -> None:
    """Save after the sixth batch."""
    trainer = trainer_for(root, Saving(root / "cut.ckpt", "on_train_batch_end", 6), enable_checkpointing=False)
    trainer.fit(Scripted(), loader())


class Saving(Callback):
    def __init__(self, path: Path, hook: str, nth: int) -> None:
        self.path, self.nth, self.calls = path, nth, 0
        setattr(self, hook, self._come)

    def _come(self, trainer: Any, *args: Any) -> None:
        self.calls += 1
        if self.calls == self.nth:
            trainer.save_checkpoint(self.path)


def test_a_truncated_file_changes_nothing(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-200])
    module = Scripted()
    before = module.layer.weight.clone()
    with pytest.raises(CorruptDataError, match=r"saved\.ckpt"):
        resume(saved, module)
    assert torch.equal(module.layer.weight, before)


def test_a_foreign_file_is_named_with_its_keys(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, tmp_path / "foreign.ckpt")
    with pytest.raises(CorruptDataError, match=r"not a checkpoint of Leyden or Lightning 2\.x: it has the keys 'weights'"):
        resume(tmp_path / "foreign.ckpt")


def test_training_does_not_go_on_from_weights_alone(tmp_path: Path) -> None:
    trainer = fit(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(KeyError, match="checkpoint contains only the model"):
        resume(tmp_path / "weights.ckpt")


def test_a_run_beyond_max_epochs_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"You restored a checkpoint with current_epoch=2, but you have set Trainer\(max_epochs=1\)"):
        resume(saved, max_epochs=1)


class TwoOptimizers(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([parameter], lr=0.1) for parameter in self.parameters()]


@pytest.mark.filterwarnings("ignore:.*holds the states of 1 learning rate schedulers")
def test_another_number_of_optimizers_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds the states of 1 optimizers, configure_optimizers\(\) returned 2"):
        resume(saved, TwoOptimizers())


class NoSchedule(Scripted):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def test_another_number_of_schedulers_is_told_of(saved: Path) -> None:
    with pytest.warns(UserWarning, match=r"states of 1 learning rate schedulers, configure_optimizers\(\) returned 0"):
        resume(saved, NoSchedule())


# -- which one ---------------------------------------------------------------------------------------------------


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Checkpoint file not found: .*nowhere"):
        resume(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize(
    ("word", "callbacks", "words"),
    [
        ("best", [], "`ModelCheckpoint` is not configured"),
        ("best", [ModelCheckpoint()], "is not configured to save the best"),
        ("registry:mine", [], "model registries are not supported"),
    ],
)
def test_words_that_mean_nothing_here(tmp_path: Path, word: str, callbacks: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resume(word, None, tmp_path, *callbacks, enable_checkpointing=bool(callbacks))


def test_hpc_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no hpc_ckpt_N\.ckpt"):
        resume("hpc", None, tmp_path)
    fit(tmp_path, max_epochs=1, enable_checkpointing=False).save_checkpoint(tmp_path / "hpc_ckpt_2.ckpt")
    fit(tmp_path, max_epochs=2, enable_checkpointing=False).save_checkpoint(tmp_path / "hpc_ckpt_10.ckpt")
    assert resume("hpc", None, tmp_path, max_epochs=2).global_step == 8


def test_last_is_the_one_with_the_most_steps_inside(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=2, enable_checkpointing=False).save_checkpoint(tmp_path / "last-v1.ckpt")
    fit(tmp_path, max_epochs=1, enable_checkpointing=False).save_checkpoint(tmp_path / "last.ckpt")
    os.utime(tmp_path / "last-v1.ckpt", (0, 0))  # the file's age says otherwise
    trainer = resume("last", None, tmp_path, ModelCheckpoint(tmp_path), enable_checkpointing=True, max_epochs=2)
    assert trainer.global_step == 8


def test_a_broken_last_is_passed_over(tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=1, enable_checkpointing=False).save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "last-v1.ckpt").write_bytes(b"half a file")
    trainer = resume("last", None, tmp_path, ModelCheckpoint(tmp_path), enable_checkpointing=True, max_epochs=2)
    assert trainer.global_step == 8


def test_without_any_last_training_starts_fresh(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No checkpoint will be loaded"):
        trainer = resume("last", None, tmp_path, ModelCheckpoint(tmp_path / "c"), enable_checkpointing=True)
    assert trainer.global_step == 12


# -- what is inside ----------------------------------------------------------------------------------------------


def test_weights_alone_hold_no_more_than_they_say(tmp_path: Path) -> None:
    trainer = fit(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    tree = torch.load(tmp_path / "weights.ckpt", weights_only=True)
    ours = {"epoch", "global_step", "pytorch-lightning_version", "leyden_version", "state_dict", "loops", "__leyden__"}
    assert set(tree) == ours


class Editing(Scripted):
    """Saves a note and a set of paths, and edits what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Any = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["note"] = {Path("a"), Path("b")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seen = checkpoint["note"]
        checkpoint["state_dict"] = {**checkpoint["state_dict"], "layer.bias": torch.full((1,), 7.0)}


def test_hooks_add_to_a_checkpoint_and_edit_what_is_loaded(tmp_path: Path) -> None:
    fit(tmp_path, module=Editing(), max_epochs=1, enable_checkpointing=False).save_checkpoint(tmp_path / "x.ckpt")
    module = Editing()
    trainer_for(tmp_path).validate(module, loader(), ckpt_path=tmp_path / "x.ckpt")
    assert module.seen == {Path("a"), Path("b")}
    assert module.layer.bias.item() == 7.0


class Data(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.shard = 0

    def train_dataloader(self) -> Any:
        return loader()

    def state_dict(self) -> dict[str, Any]:
        return {"shard": self.shard}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.shard = state_dict["shard"]


def test_a_data_module_gets_its_state_back(tmp_path: Path) -> None:
    data = Data()
    data.shard = 5
    trainer = trainer_for(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(Scripted(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["Data"] == {"shard": 5}
    other = Data()
    trainer_for(tmp_path, max_epochs=2, enable_checkpointing=False).fit(Scripted(), datamodule=other, ckpt_path=tmp_path / "x.ckpt")
    assert other.shard == 5


class Box:
    """What only pickle can keep."""

    def __init__(self, value: int) -> None:
        self.value = value


class Keeping(Callback):
    def __init__(self, value: int) -> None:
        self.box = Box(value)

    def state_dict(self) -> dict[str, Any]:
        return {"box": self.box}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.box = state_dict["box"]


@pytest.mark.filterwarnings("ignore:weights_only=False")
def test_pickles_are_read_only_from_files_that_are_trusted(tmp_path: Path) -> None:
    fit(tmp_path, Keeping(3), max_epochs=1, enable_checkpointing=False).save_checkpoint(tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=True)
    with pytest.raises(ConfigError, match=r"only pickle can read, at .*callbacks.*Keeping.*weights_only=False"):
        resume(tmp_path / "x.ckpt", None, tmp_path, Keeping(0))
    callback = Keeping(0)
    trainer = trainer_for(tmp_path, callback, max_epochs=2, enable_checkpointing=False)
    trainer.fit(Scripted(), loader(), ckpt_path=tmp_path / "x.ckpt", weights_only=False)
    assert callback.box.value == 3


# -- when --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="Saving a checkpoint is only possible if a model is attached"):
        trainer_for(tmp_path).save_checkpoint(tmp_path / "x.ckpt")


def test_a_finished_run_can_be_saved_and_made_longer(saved: Path) -> None:
    assert step_of(saved) == 8
    whole = fit(saved.parent / "whole", max_epochs=4, enable_checkpointing=False)
    assert resume(saved, max_epochs=4).global_step == whole.global_step == 16


def test_a_run_that_failed_can_be_saved_afterwards(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, enable_checkpointing=False)
    module = Scripted()

    def fail(*args: Any) -> None:
        if trainer.global_step == 6:
            raise RuntimeError("stop here")

    module.on_train_batch_end = fail
    with pytest.raises(RuntimeError, match="stop here"):
        trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    seen: list[tuple[int, int]] = []
    other = Scripted()
    other.on_train_batch_start = lambda batch, batch_idx: seen.append((other.current_epoch, batch_idx))
    trainer_for(tmp_path, enable_checkpointing=False).fit(other, loader(), ckpt_path=tmp_path / "x.ckpt")
    assert seen == [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_validating_after_training_does_not_take_what_a_checkpoint_needs(tmp_path: Path) -> None:
    module = Scripted()
    trainer = trainer_for(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(module, loader(), loader(1))
    trainer.validate(module, loader(1), verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert resume(tmp_path / "x.ckpt").global_step == 12


def test_a_copied_file_is_as_good(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "copy.ckpt")
    assert resume(tmp_path / "copy.ckpt").global_step == 12


def test_a_save_in_the_background_is_complete_when_fit_returns(tmp_path: Path) -> None:
    class Saves(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "late.ckpt")

    trainer = Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=0, plugins=AsyncCheckpointIO(), callbacks=Saves(), accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(BoringModel())
    assert torch.load(tmp_path / "late.ckpt", weights_only=True)["global_step"] == 1
