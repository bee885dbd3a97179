"""The loader in runs of Fabric and of the trainer, which know nothing of it: shares, epochs, and resuming exactly."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leyden.data import StreamingDataLoader, StreamingDataset, optimize
from leyden.fabric import Fabric
from leyden.trainer import Callback, LightningModule, Trainer
from tests.support.ranks import run_ranks

ROWS = 48


def sample(index: int) -> dict[str, Any]:
    return {"x": torch.full((2,), float(index)), "id": index}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("train"))
    optimize(sample, list(range(ROWS)), folder, num_workers=0, verbose=False)
    return folder


def loader_of(folder: str, **options: Any) -> StreamingDataLoader:
    return StreamingDataLoader(StreamingDataset(folder, shuffle=True), batch_size=4, **options)


def alone(folder: str, epoch: int) -> list[list[int]]:
    loader = loader_of(folder)
    loader.set_epoch(epoch)
    return [batch["id"].tolist() for batch in loader]


def fabric_epoch(folder: str, epochs: int) -> list[list[int]]:
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    loader = fabric.setup_dataloaders(loader_of(folder))
    return [batch["id"].tolist() for _ in range(epochs) for batch in loader]


def test_two_ranks_share_the_batches_and_epochs_differ(folder: str) -> None:
    shares = run_ranks(fabric_epoch, 2, args=(folder, 2))
    steps = [sorted(first + second) for first, second in zip(*shares, strict=True)]
    single = StreamingDataLoader(StreamingDataset(folder, shuffle=True), batch_size=8)
    expected = []
    for epoch in (0, 1):
        single.set_epoch(epoch)
        expected += [sorted(batch["id"].tolist()) for batch in single]
    assert steps == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fabric_loop_goes_on_where_it_was_saved(folder: str, tmp_path: Path, workers: int) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    loader = fabric.setup_dataloaders(loader_of(folder, num_workers=workers))
    list(loader)
    iterator = iter(loader)
    before = [next(iterator)["id"].tolist() for _ in range(5)]
    fabric.save(tmp_path / "c.ckpt", {"loader": loader})
    rest = [batch["id"].tolist() for batch in iterator] + [batch["id"].tolist() for batch in loader]
    assert before + rest == alone(folder, 1) + alone(folder, 2)
    again = fabric.setup_dataloaders(loader_of(folder, num_workers=workers))
    fabric.load(tmp_path / "c.ckpt", {"loader": again})
    assert [batch["id"].tolist() for batch in again] + [batch["id"].tolist() for batch in again] == rest


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        self.seen.append(batch["id"].tolist())
        return self.layer(batch["x"]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-5)


class SavesAt(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fitted(root: Path, folder: str, workers: int, **options: Any) -> Net:
    net = Net()
    callbacks = options.pop("callbacks", [])
    path = options.pop("ckpt_path", None)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=3, default_root_dir=root, callbacks=callbacks, **quiet, **options)
    trainer.fit(net, loader_of(folder, num_workers=workers), ckpt_path=path)
    return net


@pytest.mark.parametrize(("workers", "step"), [(0, 5), (2, 17), (0, 12), (0, 24)])
def test_a_fit_is_resumed_at_its_batch(folder: str, tmp_path: Path, workers: int, step: int) -> None:
    path = tmp_path / "c.ckpt"
    unbroken = fitted(tmp_path, folder, workers, callbacks=[SavesAt(step, path)])
    assert unbroken.seen == list(itertools.chain(*(alone(folder, epoch) for epoch in range(3))))
    resumed = fitted(tmp_path, folder, workers, ckpt_path=path)
    assert resumed.seen == unbroken.seen[step:]
    assert torch.equal(resumed.layer.weight, unbroken.layer.weight)
