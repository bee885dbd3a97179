"""`plugins=` and defaults from the environment, on two real ranks: they reach the run."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks import ModelCheckpoint
from leyden.trainer.plugins import AsyncCheckpointIO, ClusterEnvironment, MixedPrecision, TorchCheckpointIO
from leyden.trainer.trainer.trainer import Trainer
from tests.support.lines import Line, points, quiet_trainer
from tests.support.ranks import run_ranks


class Site(ClusterEnvironment):
    """A scheduler nobody knows: its variables begin with SITE."""

    creates_processes_externally = True
    main_address = "127.0.0.1"
    main_port = 1

    @staticmethod
    def detect(environ: Any = None) -> bool:
        return False

    def world_size(self) -> int:
        return int(os.environ["SITE_SIZE"])

    def set_world_size(self, size: int) -> None:
        return

    def global_rank(self) -> int:
        return int(os.environ["SITE_RANK"])

    def set_global_rank(self, rank: int) -> None:
        return

    local_rank = global_rank

    def node_rank(self) -> int:
        return 0


class Recording(TorchCheckpointIO):
    """Notes what is saved, loaded and removed through it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self.calls.append(f"save {Path(path).name}")
        super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        self.calls.append(f"load {Path(path).name}")
        return super().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        self.calls.append(f"remove {Path(path).name}")
        super().remove_checkpoint(path)


def plugged(root: Path) -> list[Any]:
    warnings.simplefilter("ignore")
    os.environ["SITE_RANK"], os.environ["SITE_SIZE"] = os.environ["RANK"], "2"
    inner = Recording()
    plugins = [Site(), inner, MixedPrecision("bf16-mixed", "cpu")]
    saver = ModelCheckpoint(root / "c", filename="{step}")
    trainer = quiet_trainer(root, strategy="ddp", devices=2, plugins=plugins, callbacks=[saver])
    trainer.fit(Line(), points(), points(4))
    again = quiet_trainer(root, strategy="ddp", devices=2, plugins=[Site(), inner], max_epochs=3)
    again.fit(Line(), points(), points(4), ckpt_path=saver.best_model_path)
    aside = AsyncCheckpointIO(TorchCheckpointIO())
    last = quiet_trainer(root, strategy="ddp", devices=2, plugins=[Site(), aside], callbacks=[ModelCheckpoint(root / "a")], max_epochs=1)
    last.fit(Line(), points(), points(4))
    place = (trainer.global_rank, trainer.world_size, trainer.precision, type(trainer.strategy.cluster_environment).__name__)
    return [place, inner.calls, again.global_step]


def test_environment_precision_and_storage_reach_the_run(tmp_path: Path) -> None:
    first, second = run_ranks(plugged, 2, args=(tmp_path,))
    assert first[0] == (0, 2, "bf16-mixed", "Site")
    assert second[0] == (1, 2, "bf16-mixed", "Site")
    assert first[1] == ["save step=4.ckpt", "save step=8.ckpt", "remove step=4.ckpt", "load step=8.ckpt"]
    assert second[1] == ["load step=8.ckpt"]
    assert first[2] == second[2] == 12
    assert torch.load(tmp_path / "a" / "epoch=0-step=4.ckpt", weights_only=True)["global_step"] == 4


def by_environment(root: Path) -> list[Any]:
    trainer = Trainer(default_root_dir=root, logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(Line(), points(), points(4))
    return [trainer.world_size, trainer.global_step, trainer.gradient_clip_val, trainer.progress_bar_callback, trainer.max_epochs]


def test_arguments_that_are_left_out_come_from_the_environment(tmp_path: Path) -> None:
    variables = {
        "LEYDEN_TRAINER_STRATEGY": "ddp",
        "PL_TRAINER_STRATEGY": "fsdp",  # ours goes first
        "PL_TRAINER_DEVICES": "2",
        "LEYDEN_TRAINER_ACCELERATOR": "cpu",
        "LEYDEN_TRAINER_MAX_EPOCHS": "1",
        "PL_TRAINER_GRADIENT_CLIP_VAL": "0.5",
        "LEYDEN_TRAINER_ENABLE_PROGRESS_BAR": "False",
        "LEYDEN_TRAINER_MAX_TIME": "",
        "LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS": "5",  # no argument
    }
    assert run_ranks(by_environment, 2, args=(tmp_path,), env=variables) == [[2, 4, 0.5, None, 1]] * 2


def test_two_plugins_of_one_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CheckpointIO"):
        quiet_trainer(tmp_path, plugins=[TorchCheckpointIO(), TorchCheckpointIO()])
