"""Averages in real fits: what validation sees, what files hold, and that a resumed run ends bit for bit where the whole one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from tests.support.training_state import assert_same_tree

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the saver stays behind


class Net(LightningModule):
    """Dropout, a batch norm, a schedule and a plateau: what an exact resume must get right."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(self.net[0].weight.detach().clone())
        self.log("val", self.net(batch[0]).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def loader(shuffle: bool) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(24, 4, generator=torch.Generator().manual_seed(0))), batch_size=4, shuffle=shuffle)


def fit(root: Path, *callbacks: Callback, seed: int = 5, ckpt_path: Path | None = None, **options: Any) -> tuple[Trainer, Net]:
    torch.manual_seed(seed)
    net = Net()
    trainer = Trainer(
        default_root_dir=root,
        callbacks=list(callbacks),
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3, "enable_checkpointing": None if len(callbacks) > 1 else False, "num_sanity_val_steps": 0, **options},
    )
    trainer.fit(net, loader(shuffle=True), loader(shuffle=False), ckpt_path=ckpt_path)
    return trainer, net


class Watch(Callback):
    """Writes down the weights after each step, and at each validation's beginning and end."""

    def __init__(self) -> None:
        self.live: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.live.append(pl_module.net[0].weight.detach().clone())


def test_validation_sees_the_average_of_all_steps(tmp_path: Path) -> None:
    watch = Watch()
    _, net = fit(tmp_path, WeightAveraging(), watch)
    for epoch in range(3):
        expected = torch.stack(watch.live[: 6 * (epoch + 1)]).mean(0)
        for seen in net.seen[6 * epoch : 6 * (epoch + 1)]:
            torch.testing.assert_close(seen, expected)


def test_the_module_ends_with_the_average_and_the_file_holds_both(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="end", save_top_k=1)
    watch = Watch()
    _, net = fit(tmp_path, EMAWeightAveraging(decay=0.5), watch, saver)
    stored = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert_same_tree(dict(stored["state_dict"]), dict(net.state_dict()))
    assert torch.equal(stored["current_model_state"]["net.0.weight"], watch.live[-1])
    assert int(stored["averaging_state"]["n_averaged"]) == 18


@pytest.mark.parametrize("make", [WeightAveraging, lambda: EMAWeightAveraging(decay=0.7)], ids=["equal", "ema"])
@pytest.mark.parametrize(
    "saver",
    [
        {"every_n_train_steps": 8},
        {"every_n_train_steps": 12},
        {"every_n_epochs": 2, "save_on_train_epoch_end": True},
        {"every_n_epochs": 2, "save_on_train_epoch_end": False},
    ],
    ids=["mid-epoch", "last-batch", "epoch-end", "after-validation"],
)
def test_a_resumed_run_ends_bit_for_bit_where_the_unbroken_one_does(tmp_path: Path, make: Any, saver: dict[str, Any]) -> None:
    whole_trainer, whole = fit(tmp_path / "whole", make(), ModelCheckpoint(tmp_path, filename="at", **saver, save_top_k=1))
    (file,) = [path for path in tmp_path.glob("at*.ckpt") if "-v" not in path.name]
    trainer, net = fit(tmp_path / "rest", make(), seed=77, ckpt_path=file)
    assert_same_tree(dict(net.state_dict()), dict(whole.state_dict()))
    for mine, other in zip(net.seen[::-1], whole.seen[::-1], strict=False):
        assert torch.equal(mine, other)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    whole_trainer.save_checkpoint(tmp_path / "b.ckpt")
    mine, other = (torch.load(tmp_path / name, weights_only=True) for name in ("a.ckpt", "b.ckpt"))
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_same_tree(mine[key], other[key], key)


class SaveInValidation(Callback):
    """Saves in the middle of a validation, or at its edges."""

    def __init__(self, hook: str, path: Path) -> None:
        self.hook, self.path = hook, path
        self.__dict__[hook] = self._save

    def _save(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        is_third = not args or not self.hook.endswith("batch_end") or args[2] == 2
        if trainer.current_epoch == 1 and is_third and not self.path.exists():
            trainer.save_checkpoint(self.path)


HOOKS = ["on_validation_start", "on_validation_epoch_start", "on_validation_batch_end", "on_validation_epoch_end", "on_validation_end"]


@pytest.mark.parametrize("first", [True, False], ids=["saver-first", "average-first"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_save_inside_validation_knows_which_weights_are_live(tmp_path: Path, hook: str, first: bool) -> None:
    saver, ema = SaveInValidation(hook, tmp_path / "at.ckpt"), EMAWeightAveraging(decay=0.7)
    callbacks = (saver, ema) if first else (ema, saver)
    _, whole = fit(tmp_path, *callbacks, enable_checkpointing=False)
    others = (Callback(), EMAWeightAveraging(decay=0.7)) if first else (EMAWeightAveraging(decay=0.7), Callback())
    _, net = fit(tmp_path, *others, seed=77, ckpt_path=tmp_path / "at.ckpt", enable_checkpointing=False)
    assert_same_tree(dict(net.state_dict()), dict(whole.state_dict()))
    assert all(torch.equal(mine, other) for mine, other in zip(net.seen[::-1], whole.seen[::-1], strict=False))


def test_testing_the_best_checkpoint_uses_the_average(tmp_path: Path) -> None:
    trainer, net = fit(tmp_path, EMAWeightAveraging(decay=0.9), ModelCheckpoint(tmp_path / "files", monitor="val"))
    stored = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    trainer.validate(net, loader(shuffle=False), ckpt_path="best", verbose=False)
    assert torch.equal(net.seen[-1], stored["state_dict"]["net.0.weight"])
