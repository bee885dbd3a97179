"""Finders on one GPU: memory really runs out, is given back, and nothing is left of the trials."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningModule
from leyden.trainer.callbacks import LearningRateFinder
from leyden.trainer.tuner import Tuner
from tests.support.gpu import REHEARSES, needs_gpu
from tests.support.training_state import assert_same_tree
from tests.support.tunable import fresh, trainer_for

pytestmark = [needs_gpu, pytest.mark.filterwarnings("ignore:.*does not have many workers")]
ACCELERATOR = "cpu" if REHEARSES else "gpu"
SHARE = 0.02  # of the device's memory, which is all that torch may use


class Hungry(LightningModule):
    """Takes a gigabyte of activations for 64 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 2
        self.net = nn.Linear(4, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if REHEARSES and len(batch[0]) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        wide = self.net(batch[0])[:, :1].expand(-1, 4_000_000 if not REHEARSES else 4)
        return (wide * 1.5).sin().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.randn(4096, 4)), batch_size=self.batch_size)


@pytest.mark.parametrize("mode", ["power", "binsearch"])
def test_a_batch_size_is_found_where_memory_really_ends(tmp_path: Path, mode: str) -> None:
    module = Hungry()
    trainer = trainer_for(tmp_path, accelerator=ACCELERATOR, devices=1, max_steps=3)
    if not REHEARSES:
        torch.cuda.set_per_process_memory_fraction(SHARE)
    try:
        before = {name: value.cpu().clone() for name, value in module.state_dict().items()}
        found = Tuner(trainer).scale_batch_size(module, mode=mode)
        assert found is not None
        assert 8 <= found < 1024
        assert_same_tree({name: value.cpu() for name, value in module.state_dict().items()}, before)
        if not REHEARSES:
            assert torch.cuda.memory_allocated() < 150e6  # cuBLAS keeps a workspace
        trainer.fit(module)
        assert trainer.global_step == 3
    finally:
        if not REHEARSES:
            torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_fit_with_a_finder_that_only_looks_is_the_fit_without_it(tmp_path: Path) -> None:
    def fitted(*callbacks: Any, **options: Any) -> Any:
        module = fresh()
        trainer = trainer_for(tmp_path, *callbacks, accelerator=ACCELERATOR, devices=1, max_epochs=1, **options)
        trainer.fit(module)
        return {name: value.cpu() for name, value in module.state_dict().items()}, module.seen.cpu(), torch.rand(3)

    for precision in ("32-true", "bf16-mixed") if REHEARSES else ("32-true", "16-mixed"):
        finder = LearningRateFinder(update_attr=False, num_training_steps=20)
        assert_same_tree(fitted(finder, precision=precision), fitted(precision=precision))
