"""Limits that are set on a trainer hold from its next entry point on."""

from pathlib import Path

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer import Trainer
from leyden.trainer.demos.boring_classes import BoringModel


class Counting(BoringModel):
    def __init__(self) -> None:
        super().__init__()
        self.trained = self.validated = 0

    def training_step(self, batch: object, batch_idx: int) -> object:
        self.trained += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: object, batch_idx: int) -> object:
        self.validated += 1
        return super().validation_step(batch, batch_idx)


def test_limits_are_set_between_runs(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=1, limit_train_batches=3, limit_val_batches=2, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    model = Counting()
    trainer.fit(model)
    assert (model.trained, model.validated) == (3, 2)
    trainer.limit_val_batches = 5
    trainer.validate(model, verbose=False)
    assert (model.validated, trainer.limit_val_batches, trainer.limit_train_batches) == (7, 5, 3)
    with pytest.raises(ConfigError, match=r"invalid value 2\.5 for `limit_test_batches`"):
        trainer.limit_test_batches = 2.5
