"""Runs over a feed that are cut at any point and go on in what stands for a new process."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from leyden.fabric import rng
from leyden.trainer.data.feed import Feed
from tests.support.loaders import seeded

Make = Callable[[], Feed]


def stored(value: Any) -> Any:
    """Return what a file gives back that is read without running anything."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@dataclass
class Run:
    """A loop over `epochs` passes that draws random numbers after each batch, and may be cut after any of its events."""

    feed: Feed
    epochs: int = 2
    cut_after: int | None = None
    events: int = 0
    epoch: int = 0
    seen: list[Any] = field(default_factory=list)
    saved: Any = None

    def go(self) -> "Run":
        feed = self.feed
        while self.epoch < self.epochs:
            feed.open()
            if self._is_cut("open"):
                return self
            for batch in feed:
                self.seen.append(_noted(batch, self.epoch, feed))
                torch.rand(3)
                if self._is_cut("batch"):
                    return self
            if self._is_cut("last"):
                return self
            feed.end()
            self.epoch += 1
            if self._is_cut("end"):
                return self
        self.seen.append(("final", rng.capture()["torch"].sum().item(), torch.rand(1).item()))
        return self

    def _is_cut(self, where: str) -> bool:
        self.events += 1
        if self.events != self.cut_after:
            return False
        self.saved = stored({"feed": self.feed.state_dict(), "rng": rng.capture(), "epoch": self.epoch, "is_inside": where != "end"})
        self.feed.close()
        return True


def resumed(make: Make, saved: Any, epochs: int = 2) -> Run:
    """Go on in a process with other random numbers and new loaders."""
    seeded()  # the run's own seed is what a new process has too
    torch.manual_seed(99)
    torch.rand(17)
    feed = make()
    feed.load_state_dict(saved["feed"])
    if saved["is_inside"]:
        feed.open()
    rng.restore(saved["rng"])
    return Run(feed, epochs, epoch=saved["epoch"]).go()


def unbroken(make: Make, epochs: int = 2) -> Run:
    seeded()
    return Run(make(), epochs).go()


def cut(make: Make, event: int, epochs: int = 2) -> Run:
    seeded()
    return Run(make(), epochs, cut_after=event).go()


def _noted(batch: Any, epoch: int, feed: Feed) -> Any:
    return _plain(batch), epoch, feed.batch_idx, feed.dataloader_idx, feed.is_last


def _plain(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    if isinstance(batch, dict):
        return {key: _plain(item) for key, item in batch.items()}
    return [_plain(item) for item in batch] if isinstance(batch, (list, tuple)) else batch
