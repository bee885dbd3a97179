"""Savers on two real ranks: rank 0 decides, all act; time, exceptions, sharded directories."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.trainer.callbacks import EarlyStopping, ModelCheckpoint, Timer, failed_run
from leyden.trainer.core.callback import Callback
from tests.support.ranks import RanksError, run_ranks
from tests.support.scripted_fit import Scripted, fit, loader, names_in, step_of, trainer_for


class SlowClock(Callback):
    """Lets a minute pass with every batch, on rank 0's own clock."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero:
            trainer.run.clock._seconds += 60.0


class FailsOn(Callback):
    """Raises before a step on some ranks."""

    def __init__(self, step: int, ranks: tuple[int, ...]) -> None:
        self.step, self.ranks = step, ranks

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and trainer.global_rank in self.ranks:
            raise RuntimeError(f"rank {trainer.global_rank} fails")


class OwnMetric(Callback):
    """Logs another value on each rank."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.callback_metrics["own"] = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]][trainer.global_rank][trainer.current_epoch])


def train(root: Path, *callbacks: Any, strategy: str = "ddp", losses: list[float] | None = None, **options: Any) -> Any:
    return fit(root, *callbacks, module=Scripted(losses), strategy=strategy, devices=2, **options)


def ranked(root: Path, strategy: str) -> list[Any]:
    saver = ModelCheckpoint(root / "c", monitor="own", save_last=True, filename="{epoch}")
    train(root, OwnMetric(), saver, strategy=strategy)
    return [sorted(Path(path).name for path in saver.best_k_models), float(saver.best_model_score or 0), Path(saver.last_model_path).name]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_rank_zero_decides_which_files_stay(tmp_path: Path, strategy: str) -> None:
    assert run_ranks(ranked, 2, args=(tmp_path, strategy)) == [[["epoch=0.ckpt"], 1.0, "last.ckpt"]] * 2
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["epoch=0.ckpt", "last.ckpt"]
    assert (tmp_path / "c" / "last.ckpt").is_dir() == (strategy == "fsdp")
    assert step_of(tmp_path / "c" / "last.ckpt") == 6


def linked(root: Path) -> None:
    train(root, ModelCheckpoint(root / "c", save_last=True), strategy="fsdp")


def test_a_sharded_last_is_a_link_to_the_newest_directory(tmp_path: Path) -> None:
    run_ranks(linked, 2, args=(tmp_path,))
    last = tmp_path / "c" / "last.ckpt"
    assert last.is_symlink()
    assert last.resolve().name == "epoch=2-step=6.ckpt"
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["epoch=2-step=6.ckpt", "last.ckpt"]


def timed(root: Path) -> list[int]:
    steps: list[int] = []
    saver = ModelCheckpoint(root / "c", train_time_interval=timedelta(minutes=4), save_top_k=-1)
    trainer = train(root, SlowClock(), saver, max_epochs=20)
    steps.extend(int(Path(path).name.rpartition("=")[2].removesuffix(".ckpt")) for path in [saver.best_model_path])
    return [trainer.global_step, *steps]


def test_a_time_that_only_rank_zero_knows_saves_on_all_ranks_at_one_step(tmp_path: Path) -> None:
    first, second = run_ranks(timed, 2, args=(tmp_path,))
    assert first == second
    assert len(names_in(tmp_path / "c")) >= 4


def stopped(root: Path) -> tuple[int, str]:
    stopping = EarlyStopping("own", stopping_threshold=1.5)
    trainer = train(root, OwnMetric(), stopping, enable_checkpointing=False)
    return trainer.global_step, stopping.stopping_reason.name


def test_one_ranks_reason_stops_all(tmp_path: Path) -> None:
    assert run_ranks(stopped, 2, args=(tmp_path,)) == [(2, "STOPPING_THRESHOLD")] * 2


class ClockOfOneRank:
    """A clock whose hour is over on rank 0 after a few looks."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += os.environ["RANK"] == "0"
        return self.looks * 1000.0

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def timed_out(root: Path) -> int:
    return train(root, Timer("1h", clock=ClockOfOneRank()), max_epochs=-1, enable_checkpointing=False).global_step


def test_rank_zeros_time_stops_all_ranks_after_one_step(tmp_path: Path) -> None:
    first, second = run_ranks(timed_out, 2, args=(tmp_path,))
    assert first == second > 0


def failed_together(root: Path) -> int:
    saver = ModelCheckpoint(root / "c", save_on_exception=True, save_last=True)
    with pytest.raises(RuntimeError, match="fails"):
        train(root, FailsOn(3, (0, 1)), saver)
    return saver.last_step


def test_ranks_that_fail_together_save(tmp_path: Path) -> None:
    assert run_ranks(failed_together, 2, args=(tmp_path,)) == [3, 3]
    assert names_in(tmp_path / "c") == ["epoch=0-step=2.ckpt", "epoch=1-step=3.ckpt", "last.ckpt"]
    assert step_of(tmp_path / "c" / "last.ckpt") == 3  # rank 0 names it, after the others have gone: a rank must not look


def failed_alone(root: Path) -> None:
    failed_run.PATIENCE_SECONDS = 0.2
    trainer = trainer_for(root, FailsOn(3, (0,)), ModelCheckpoint(root / "c", save_on_exception=True), strategy="ddp", devices=2)
    try:
        trainer.fit(Scripted(), loader(), loader(1))
    finally:
        (root / f"left-{trainer.global_rank}").touch()


def test_a_rank_that_fails_alone_saves_nothing_and_does_not_wait_for_the_others(tmp_path: Path) -> None:
    with pytest.raises(RanksError, match="rank 0 fails"):
        run_ranks(failed_alone, 2, args=(tmp_path,), timeout=60)
    assert (tmp_path / "left-0").exists()
    assert names_in(tmp_path / "c") == ["epoch=0-step=2.ckpt"]
