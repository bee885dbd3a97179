import json
from pathlib import Path

import pytest
import torch

from leyden.core.errors import StateError
from leyden.fabric.spike import TrainingSpikeException
from leyden.trainer.callbacks import SpikeDetection
from tests.support.module_trainer import FakeModule, ModuleTrainer


def test_a_spike_ends_the_run_and_names_the_batches(tmp_path: Path) -> None:
    spike = SpikeDetection(exclude_batches_path=tmp_path)
    trainer, module = ModuleTrainer(), FakeModule()
    for index in range(3):
        spike.on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, None, index)
    with pytest.raises(TrainingSpikeException, match="batch 3"):
        spike.on_train_batch_end(trainer, module, {"loss": torch.tensor(50.0)}, None, 3)
    assert json.loads((tmp_path / "skip_batches.json").read_text()) == [2, 3]


def test_a_loss_alone_is_looked_at_too(tmp_path: Path) -> None:
    spike = SpikeDetection(exclude_batches_path=tmp_path)
    spike.on_train_batch_end(ModuleTrainer(), FakeModule(), torch.tensor(2.0), None, 0)
    assert spike.last_val == 2.0


def test_a_skipped_step_is_no_spike() -> None:
    spike = SpikeDetection()
    spike.on_train_batch_end(ModuleTrainer(), FakeModule(), {}, None, 0)
    assert spike.state_dict()["values"] == []


def test_manual_optimisation_without_a_loss_is_refused() -> None:
    with pytest.raises(StateError, match="Return the loss"):
        SpikeDetection().on_train_batch_end(ModuleTrainer(), FakeModule(automatic_optimization=False), None, None, 0)


def test_the_state_goes_on_in_another_instance() -> None:
    spike, other = SpikeDetection(), SpikeDetection(window=3)
    spike.on_train_batch_end(ModuleTrainer(), FakeModule(), {"loss": torch.tensor(2.0)}, None, 0)
    other.load_state_dict(spike.state_dict())
    assert other.state_dict() == spike.state_dict()
