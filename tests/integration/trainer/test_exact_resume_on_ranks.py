"""Exact resume on two real ranks: each goes on at its own samples, sums and random numbers."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.resumed_fit import Attempt, Net, Saver, assert_same_events, plain, scramble, without_start


class Synced(Net):
    """Logs means over all ranks."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True, sync_dist=True)


def cut_and_resumed(root: Path, hook: str, nth: int) -> int:
    """Do on every rank what `resumed` does in one process; return how many events were compared."""
    options = {"strategy": "ddp", "devices": 2, "max_epochs": 2, "use_distributed_sampler": True}
    path = root / "seam.ckpt"
    first = attempt(root / "one", 1, options)
    saver = Marking(hook, nth, path, first.events, first.directory)
    first.fit(saver)
    second = attempt(root / "two", 2, options)
    second.fit(Marking(hook, 0, path, second.events, second.directory), ckpt_path=path)
    after = first.events[saver.mark :]
    assert_same_events(without_files(after), without_files(without_start(second.events)))
    return len(after)


class Marking(Saver):
    """Notes the place, and leaves the directory alone: two ranks have it."""

    def _come(self, trainer: Any, *args: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.nth and not trainer.sanity_checking and self.mark < 0:
            trainer.save_checkpoint(self.path)
            self.mark = len(self.events)


def attempt(root: Path, seed: int, options: dict[str, Any]) -> Attempt:
    root.mkdir(exist_ok=True)
    scramble(seed)
    made = Attempt(root, lambda: plain(length=20), Synced, list, **options)
    made.late = made.late[:1]
    return made


def without_files(events: list[Any]) -> list[Any]:
    return [event for event in events if event[0] != "row"]


@pytest.mark.parametrize(("hook", "nth"), [("on_train_batch_end", 3), ("on_validation_batch_end", 2), ("on_train_epoch_end", 1)])
def test_two_ranks_go_on_where_they_stood(tmp_path: Path, hook: str, nth: int) -> None:
    counts = run_ranks(cut_and_resumed, 2, args=(tmp_path, hook, nth))
    assert min(counts) > 20
    shutil.rmtree(tmp_path)
