"""Finetuning in real fits: when the backbone joins in, and that a resumed run ends bit for bit where the whole one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import BackboneFinetuning, ModelCheckpoint
from tests.support.training_state import assert_same_tree

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the saver stays behind


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2))
        self.head = nn.Linear(6, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.head(self.backbone(batch[0])).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


def fit(root: Path, *callbacks: Callback, seed: int = 5, ckpt_path: Path | None = None, **options: Any) -> tuple[Trainer, Net]:
    torch.manual_seed(seed)
    net = Net()
    data = TensorDataset(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)))
    trainer = Trainer(
        default_root_dir=root,
        callbacks=list(callbacks),
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 5, "enable_checkpointing": None if len(callbacks) > 1 else False, **options},
    )
    trainer.fit(net, DataLoader(data, batch_size=4, shuffle=True), ckpt_path=ckpt_path)
    return trainer, net


def callback() -> BackboneFinetuning:
    return BackboneFinetuning(unfreeze_backbone_at_epoch=2, train_bn=False)


class Watch(Callback):
    def __init__(self) -> None:
        self.backbones: list[Tensor] = []
        self.rates: list[list[float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.backbones.append(pl_module.backbone[0].weight.detach().clone())
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_the_backbone_joins_in_at_its_epoch(tmp_path: Path) -> None:
    watch = Watch()
    fit(tmp_path, callback(), watch, enable_checkpointing=False)
    changed = [not torch.equal(one, other) for one, other in zip(watch.backbones, watch.backbones[1:], strict=False)]
    assert changed == [False, True, True, True]
    assert [len(rates) for rates in watch.rates] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "saver",
    [
        {"every_n_epochs": 1},
        {"every_n_epochs": 2},
        {"every_n_epochs": 3},
        {"every_n_epochs": 4},
        {"every_n_train_steps": 9},
        {"every_n_train_steps": 15},
        {"every_n_train_steps": 27},
    ],
    ids=str,
)
def test_a_resumed_run_ends_bit_for_bit_where_the_unbroken_one_does(tmp_path: Path, saver: dict[str, Any]) -> None:
    whole_trainer, whole = fit(tmp_path / "whole", callback(), ModelCheckpoint(tmp_path, **saver, save_top_k=-1))
    file = min(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("step=")[1]))
    trainer, net = fit(tmp_path / "rest", callback(), seed=77, ckpt_path=file)
    assert_same_tree(dict(net.state_dict()), dict(whole.state_dict()))
    assert_same_tree(trainer.optimizers[0].state_dict(), whole_trainer.optimizers[0].state_dict())
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in whole.parameters()]
