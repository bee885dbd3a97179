"""A fit that is worth resuming, and the law: what comes after a checkpoint is what would have come without it.

`prove(...)` fits once unbroken and saves on the way (run A); then everything is built anew, random numbers are scrambled,
the directory is set back to what it was at the save, and run B loads that file. What B does from there on has to be the
rest of A, bit for bit: hooks in order with the samples, weights and metrics they saw, rows, files, all states at the end.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.fabric.loggers import Logger
from leyden.trainer.callbacks import EMAWeightAveraging, ModelCheckpoint
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer
from tests.support.training_state import assert_same_tree

Event = tuple[Any, ...]
BATCH_HOOKS = {"on_train_batch_start": 1, "on_validation_batch_start": 1, "on_train_batch_end": 2, "on_validation_batch_end": 2}
"""Hook → which argument behind the module is followed by the batch's number."""
SEEN = (
    "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end",
    "on_validation_epoch_start", "on_validation_batch_start", "on_validation_batch_end", "on_validation_epoch_end", "on_train_epoch_end",
    "on_train_end", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_fit_end", "teardown",
)  # fmt: skip


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Sample i is its number, and noise: from the process's generator, so that the order of draws matters."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor(index), torch.rand(4) + index / 10 + random.random() + float(np.random.rand())


class Stateful:
    """A loader that keeps its own state, as torchdata's do."""

    def __init__(self, length: int, batch_size: int = 2) -> None:
        self.samples, self.batch_size = Samples(length), batch_size
        self.order: list[int] = []
        self.next = 0

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size

    def __iter__(self) -> Iterator[list[Tensor]]:
        if not self.next:
            self.order = torch.randperm(len(self.samples)).tolist()
        start, self.next = self.next, 0
        for number in range(start, len(self)):
            self.next = number + 1
            rows = [self.samples[index] for index in self.order[number * self.batch_size :][: self.batch_size]]
            yield [torch.stack(column) for column in zip(*rows, strict=True)]
        self.next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next, "order": list(self.order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next, self.order = state["next"], state["order"]


class Unsized:
    """Batches of nobody knows how many."""

    def __init__(self, length: int) -> None:
        self.loader = DataLoader(Samples(length), batch_size=2, shuffle=True)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """An iterable that keeps no state."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples = Samples(10)
        return (samples[index] for index in range(len(samples)))


class Peak:
    """A metric object: the largest value so far."""

    def __init__(self) -> None:
        self.value = torch.tensor(-1e9)

    def update(self, value: Tensor) -> None:
        self.value = torch.maximum(self.value, value)

    def compute(self) -> Tensor:
        return self.value

    def reset(self) -> None:
        self.value = torch.tensor(-1e9)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Net(LightningModule):
    """Dropout, a frozen part in eval mode, two schedulers, a mean over the epoch, a metric object, values of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 1))
        self.frozen = nn.Dropout(0.5).eval()
        self.peak = Peak()
        self.log_events: list[Event] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.peak.update(loss.detach())
        self.log("peak", self.peak, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("late", digest(self))

    def on_validation_epoch_end(self) -> None:
        self.log("val_late", digest(self))

    def loss(self, batch: Any) -> Tensor:
        numbers, x = batch
        self.log_events.append(("samples", numbers.tolist(), torch.rand(()).item()))
        return (self.frozen(self.net(x)) - numbers[:, None] / 10).square().mean()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        return [optimizer], [
            {"scheduler": step, "interval": "step", "frequency": 2},
            {"scheduler": plateau, "monitor": "loss_epoch", "interval": "epoch", "strict": False},
        ]


class Several(Net):
    """Takes batches of several loaders."""

    def loss(self, batch: Any) -> Tensor:
        parts = [part for part in (batch.values() if isinstance(batch, dict) else batch) if part is not None]
        if isinstance(parts[0], Tensor):
            return super().loss(batch)
        return torch.stack([super(Several, self).loss(part) for part in parts]).sum()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        name = "other_loss" if dataloader_idx else "val_loss"
        self.log(name, self.loss(batch), on_step=True, on_epoch=True, add_dataloader_idx=False)


class PlateauOfSteps(Net):
    """A plateau after every second batch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss", "interval": "step", "frequency": 2}}


class Manual(Net):
    """Two optimizers, stepped by hand; the second one on every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch)
        first, second = self.optimizers()
        self.manual_backward(loss)
        first.step()
        first.zero_grad()
        if batch_idx % 2:
            second.step()
            second.zero_grad()
        self.log("loss", loss, on_step=True, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.Adam(self.net[0].parameters(), lr=0.05), torch.optim.SGD(self.net[3].parameters(), lr=0.01, momentum=0.9)]
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7) for optimizer in optimizers]


class MemoryLogger(Logger):
    """Puts rows among the events."""

    name, version = "memory", 0

    def __init__(self, events: list[Event], directory: Path) -> None:
        self.events, self.directory = events, directory

    @property
    def save_dir(self) -> str:
        return str(self.directory)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.events.append(("row", step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        return


def digest(module: nn.Module) -> float:
    """Return a number that differs where a weight does."""
    return sum(value.detach().double().sum().item() for value in module.parameters())


class Recorder(Callback):
    """Notes each hook, with the position, the weights and the metrics it finds.

    Args:
        name: Tells two of them apart.
        events: Where to.
    """

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name, self.events = name, events
        for hook in SEEN:
            setattr(self, hook, self.noting(hook))

    @property
    def state_key(self) -> str:
        return self.name

    def noting(self, hook: str) -> Callable[..., None]:
        def note(trainer: Any, module: Any, *args: Any) -> None:
            metrics: dict[str, Any] = {}
            if hook in ("on_train_batch_end", "on_validation_end", "on_train_epoch_end", "on_validation_batch_end", "on_train_end"):
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            numbers = [value for value in args if type(value) is int]
            where = (trainer.current_epoch, trainer.global_step, trainer.is_last_batch, module.training, module.frozen.training)
            self.events.append((self.name, hook, *numbers, where, digest(module), metrics))

        return note


class Saver(Callback):
    """Saves once, in one hook, and notes where among the events that was.

    Args:
        hook: The hook; a name of a method of the module's (`training_step`, `lr_scheduler_step`) is one too.
        nth: At which of its calls; the sanity check does not count.
        path: Where to.
        events: The events.
        directory: Copied aside, since later files will be written there.
    """

    def __init__(self, hook: str, nth: int, path: Path, events: list[Event], directory: Path) -> None:
        self.hook, self.nth, self.path, self.events, self.directory = hook, nth, path, events, directory
        self.mark = -1
        self.calls = 0
        if hook in SEEN:
            setattr(self, hook, self._come)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.hook in SEEN:
            return
        inner = getattr(pl_module, self.hook)

        def outer(*args: Any, **kwargs: Any) -> Any:
            self._come(trainer)
            return inner(*args, **kwargs)

        setattr(pl_module, self.hook, outer)

    def _come(self, trainer: Any, *args: Any) -> None:
        if trainer.sanity_checking:
            return
        self.calls += 1
        if self.calls == self.nth:
            trainer.save_checkpoint(self.path)
            self.mark = len(self.events)
            shutil.copytree(self.directory, self.directory.with_name("kept"), symlinks=True)


Loaders = Callable[[], tuple[Any, Any]]


def plain(workers: int = 0, length: int = 10) -> tuple[Any, Any]:
    """Return loaders of five training and three validation batches."""
    train = DataLoader(Samples(length), batch_size=2, shuffle=True, num_workers=workers)
    return train, DataLoader(Samples(6), batch_size=2, num_workers=workers)


class Failing(Callback):
    """Raises at the `nth` call of a hook, not counting the sanity check's."""

    def __init__(self, hook: str, nth: int, failure: BaseException) -> None:
        self.nth, self.failure, self.calls = nth, failure, 0
        setattr(self, hook, self._come)

    def _come(self, trainer: Any, *args: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.nth and not trainer.sanity_checking:
            raise self.failure


class Attempt:
    """One run: all objects of it.

    Args:
        root: A directory of its own.
        loaders: Makes the loaders.
        module: Makes the module.
        callbacks: Makes more callbacks.
        options: For the `Trainer`.
    """

    def __init__(self, root: Path, loaders: Loaders, module: Callable[[], Net], callbacks: Callable[[], list[Any]], **options: Any) -> None:
        self.events: list[Event] = []
        self.directory = root / "run"
        self.directory.mkdir(exist_ok=True)
        self.module = module()
        self.module.log_events = self.events
        self.loaders = loaders()
        self.callbacks = [*callbacks(), Recorder("early", self.events)]
        self.late = [Recorder("late", self.events), *savers(self.directory)]
        self.options = {"max_epochs": 3, "log_every_n_steps": 2, "val_check_interval": 2, **options}

    def fit(self, *extra: Callback, ckpt_path: Path | None = None) -> Trainer:
        quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        logger = MemoryLogger(self.events, self.directory)
        callbacks = [*self.callbacks, *extra, *self.late]
        options = {name: value() if name == "plugins" else value for name, value in self.options.items()}
        trainer = Trainer(default_root_dir=self.directory, callbacks=callbacks, logger=logger, **{**quiet, **options})
        trainer.fit(self.module, *self.loaders, ckpt_path=ckpt_path)
        return trainer


def savers(directory: Path) -> list[Any]:
    """Return two savers that share what they are called at and differ in what they keep."""
    return [
        ModelCheckpoint(directory / "best", monitor="val_loss_epoch", save_top_k=2, save_last=True, save_on_train_epoch_end=False),
        ModelCheckpoint(directory / "all", save_top_k=-1, every_n_train_steps=3, filename="{step}-{loss_step:.4f}"),
    ]


def averaged() -> list[Any]:
    return [EMAWeightAveraging(decay=0.7, update_every_n_steps=2)]


def scramble(seed: int) -> None:
    """Set all generators to numbers of their own."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def resumed(
    root: Path,
    hook: str,
    nth: int,
    *,
    loaders: Loaders = plain,
    module: Callable[[], Net] = Net,
    callbacks: Callable[[], list[Any]] = averaged,
    **options: Any,
) -> tuple[list[Event], dict[str, Any], list[Event], dict[str, Any]]:
    """Save in the `nth` call of a hook, resume from there, and return what came after the save and the end, of both runs.

    Args:
        root: An empty directory.
        hook: Where the checkpoint is written.
        nth: At which call of it.
        loaders: Makes the loaders.
        module: Makes the module.
        callbacks: Makes callbacks.
        options: For the `Trainer`.
    """
    path = root / "seam.ckpt"
    scramble(1)
    first = Attempt(root, loaders, module, callbacks, **options)
    saver = Saver(hook, nth, path, first.events, first.directory)
    trainer = first.fit(saver)
    assert saver.mark >= 0, f"{hook} was called {saver.calls} times"
    after, end = first.events[saver.mark :], ending(trainer, first)
    shutil.rmtree(first.directory)
    (root / "kept").rename(first.directory)
    scramble(2)
    second = Attempt(root, loaders, module, callbacks, **options)
    scramble(3)
    other = second.fit(Saver(hook, 0, path, second.events, second.directory), ckpt_path=path)
    begun = second.events if hook == "on_train_start" else without_start(second.events)
    return after, end, begun, ending(other, second)


def prove(root: Path, hook: str, nth: int, **options: Any) -> None:
    """Check that what came after the save is the same in both runs; arguments as for `resumed`."""
    after, end, begun, other_end = resumed(root, hook, nth, **options)
    assert_same_events(after, begun)
    assert_same_tree(end, other_end, "the end")


def without_start(events: list[Event]) -> list[Event]:
    """Return events without `on_train_start`, which a resumed run calls in full."""
    return [event for event in events if event[1] != "on_train_start"]


def assert_same_events(expected: list[Event], found: list[Event]) -> None:
    """Compare events bit for bit."""
    for number, (one, two) in enumerate(zip(expected, found, strict=False)):
        assert_same_tree(list(one), list(two), f"event {number} of {len(expected)}: {outline(one)}, resumed {outline(two)}")
    rest = (expected + found)[-abs(len(expected) - len(found)) :]
    assert len(expected) == len(found), [outline(event) for event in rest]


def outline(event: Event) -> Event:
    """Return an event without the numbers in it that the model computed."""
    return tuple(part for part in event if not isinstance(part, (float, dict)))


def ending(trainer: Trainer, attempt: Attempt) -> dict[str, Any]:
    """Return everything that is there when a fit has ended: states, files and what is in the newest, random numbers."""
    files = sorted(str(path.relative_to(attempt.directory)) for path in attempt.directory.rglob("*"))
    last = attempt.directory / "best" / "last.ckpt"
    return {
        "random": [torch.rand(3), random.random(), float(np.random.rand())],
        "weights": dict(attempt.module.state_dict()),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "metrics": dict(trainer.callback_metrics),
        "files": files,
        "last": without_time(torch.load(last, weights_only=True)) if last.exists() else None,
    }


_TIMES = ("seconds", "triggers", "created", "waited", "saved_at")


def without_time(tree: Any) -> Any:
    """Return a checkpoint's content without the time of day and the seconds that things took."""
    if isinstance(tree, dict):
        return {key: without_time(value) for key, value in tree.items() if key not in _TIMES}
    return [without_time(item) for item in tree] if isinstance(tree, list) else tree
