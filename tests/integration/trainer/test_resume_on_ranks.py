"""Resuming on two real ranks, replicated and sharded: from each seam on, both do bit for bit what the unbroken run did."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

from leyden.trainer.callbacks import EMAWeightAveraging
from leyden.trainer.core.callback import Callback
from leyden.trainer.trainer.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.resumed_fit import Event, MemoryLogger, Net, Recorder, plain, scramble
from tests.support.training_state import assert_same_tree

SEAMS = {
    "in the middle of an epoch": ("on_train_batch_end", 3),
    "with validation pending": ("on_train_batch_end", 4),
    "in the middle of validation": ("on_validation_batch_end", 2),
    "after validation": ("on_validation_end", 2),
    "at an epoch's end": ("on_train_epoch_end", 1),
}


class Saving(Callback):
    """Saves once, in the n-th call of a hook, and notes where among the events that was."""

    def __init__(self, hook: str, nth: int, path: Path, events: list[Event]) -> None:
        self.nth, self.path, self.events = nth, path, events
        self.mark = -1
        setattr(self, hook, self._come)

    def _come(self, trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking:
            self.nth -= 1
            if self.nth == 0:
                trainer.save_checkpoint(self.path)
                self.mark = len(self.events)


def attempt(root: Path, strategy: str, hook: str, nth: int, path: Path, ckpt_path: Path | None = None) -> tuple[list[Event], int, Any]:
    """Fit for three epochs; return what happened, where the save was, and how everything is at the end."""
    events: list[Event] = []
    module = Net()
    module.net[1] = nn.LayerNorm(8)  # a batch norm's statistics are each rank's own until DDP sends rank 0's around, at the next forward
    module.log_events = events
    saving = Saving(hook, nth, path, events)
    callbacks = [EMAWeightAveraging(decay=0.7, update_every_n_steps=2), Recorder("early", events), saving, Recorder("late", events)]
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(
        default_root_dir=root, accelerator="cpu", strategy=strategy, devices=2, max_epochs=3, log_every_n_steps=2, val_check_interval=2,
        callbacks=callbacks, logger=MemoryLogger(events, root), **quiet,
    )  # fmt: skip
    trainer.fit(module, *plain(length=20), ckpt_path=ckpt_path)
    weights = {name: _whole(value) for name, value in module.state_dict().items()}
    states = [
        {f"{index}.{name}": _whole(value) for index, state in optimizer.state_dict()["state"].items() for name, value in state.items()}
        for optimizer in trainer.optimizers
    ]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return events, saving.mark, (weights, states, metrics, trainer.run.clock.state_dict() | {"seconds": 0})


def _whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def resumed(root: Path, strategy: str) -> None:
    warnings.simplefilter("ignore")
    for number, (hook, nth) in enumerate(SEAMS.values()):
        path, rank = root / f"{number}.ckpt", dist.get_rank()
        scramble(1 + rank)
        events, mark, end = attempt(root, strategy, hook, nth, path)
        assert mark > 0, hook
        scramble(11 + rank)
        again, _, other = attempt(root, strategy, hook, 0, path, ckpt_path=path)
        rest, begun = events[mark:], [event for event in again if event[1] != "on_train_start"]
        for place, (one, two) in enumerate(zip(rest, begun, strict=False)):
            assert_same_tree(list(one), list(two), f"{hook} {nth}, event {place} of {len(rest)} on rank {rank}")
        assert len(rest) == len(begun)
        assert_same_tree(list(end), list(other), f"{hook} {nth}, the end on rank {rank}")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_go_on_bit_for_bit_from_every_seam(tmp_path: Path, strategy: str) -> None:
    run_ranks(resumed, 2, args=(tmp_path, strategy), timeout=100)
