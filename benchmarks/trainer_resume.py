"""A resumed run is the unbroken one, bit for bit: of twelve places to go on from, how many end with other weights or batches.

Four moments of saving times three ways of loading: in the process, by two workers, from an iterable of unknown length. The
module drops out, the order is shuffled, AdamW and a schedule have state. The first run saves and trains on to its end; then
random numbers are scrambled, everything is built anew, and the second run goes on from the file.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fits import fit, in_new_folder
from benchmarks.harness import Benchmark, Comparison, Variant, main

EPOCHS, BATCHES, BATCH = 3, 6, 2
MOMENTS = {
    "inside an epoch": ("on_train_batch_end", 9),
    "at an epoch's end": ("on_train_epoch_end", 2),
    "inside a validation": ("on_validation_batch_end", 3),
    "after a validation": ("on_validation_end", 3),
}
LOADERS = ("in the process", "two workers", "of unknown length")


class Items:
    """Item i is its number, and noise from the process's generator: a wrong order, or a draw too many, shows."""

    def __len__(self) -> int:
        return BATCHES * BATCH

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch

        return torch.tensor(index), torch.rand(4) + index / 10


class Stream:
    """The batches of a loader, without a length."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self._loader


def _loader(kind: str, *, shuffle: bool) -> Any:
    from torch.utils.data import DataLoader

    made = DataLoader(Items(), batch_size=BATCH, shuffle=shuffle, num_workers=2 if kind == "two workers" else 0)
    return Stream(made) if kind == "of unknown length" else made


def _module(base: Any, seen: list[list[float]]) -> Any:
    import torch
    from torch import nn

    class Net(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 1))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            numbers, inputs = batch
            seen.append([*numbers.tolist(), *inputs.flatten().tolist()])
            return (self.net(inputs) - numbers[:, None] / 10).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return Net()


def _saver(base: Any, path: str, moment: str, seen: list[list[float]], places: list[int]) -> Any:
    """Return a callback that saves once at a moment and notes how many batches were trained by then."""
    hook, nth = MOMENTS[moment]
    times = iter(range(1, 1_000))

    def save(_self: Any, trainer: Any, *_: Any) -> None:
        if next(times) == nth:
            trainer.save_checkpoint(path)
            places.append(len(seen))

    return type("Saves", (base,), {hook: save})()


def is_exact(trainer: Any, module: Any, callback: Any, moment: str, kind: str) -> bool:
    """Return whether a run that goes on from `moment` ends as the unbroken one, having seen the rest of its batches.

    Args:
        trainer: The contestant's `Trainer`.
        module: Its `LightningModule`.
        callback: Its `Callback`.
        moment: A key of `MOMENTS`.
        kind: One of `LOADERS`.
    """
    import torch

    settings = {"epochs": EPOCHS, "val_check_interval": 3, "num_sanity_val_steps": 0}

    def run(folder: str, seed: int, callbacks: list[Any], seen: list[list[float]], ckpt_path: str | None) -> dict[str, Any]:
        torch.manual_seed(seed)
        model = _module(module, seen)
        loaders = (_loader(kind, shuffle=True), _loader(kind, shuffle=False))
        fit(trainer, model, *loaders, callbacks=callbacks, default_root_dir=folder, ckpt_path=ckpt_path, **settings)
        return model.state_dict()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unbroken: list[list[float]] = []
        resumed: list[list[float]] = []
        places: list[int] = []

        def both(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
            path = str(Path(folder) / "saved.ckpt")
            whole = run(folder, 1, [_saver(callback, path, moment, unbroken, places)], unbroken, None)
            return whole, run(folder, 2, [_saver(callback, path + ".again", moment, resumed, [])], resumed, path)

        whole, rest = in_new_folder(both)
    return resumed == unbroken[places[0] :] and all(torch.equal(whole[name], rest[name]) for name in whole)


def _inexact(trainer: Any, module: Any, callback: Any, kinds: tuple[str, ...]) -> dict[str, float]:
    results = [is_exact(trainer, module, callback, moment, kind) for moment in MOMENTS for kind in kinds]
    return {"inexact": results.count(False), "exact": results.count(True)}


def leyden(kinds: tuple[str, ...] = LOADERS) -> dict[str, float]:
    """Count Leyden's exact resumes."""
    from leyden.trainer import Callback, LightningModule, Trainer

    return _inexact(Trainer, LightningModule, Callback, kinds)


def lightning(kinds: tuple[str, ...] = LOADERS) -> dict[str, float]:
    """Count Lightning's exact resumes."""
    from lightning.pytorch import Callback, LightningModule, Trainer

    return _inexact(Trainer, LightningModule, Callback, kinds)


BENCHMARK = Benchmark(
    claim="a run resumed from any of twelve places ends as the unbroken one, bit for bit",
    variants={"leyden": Variant(run=leyden), "lightning": Variant(run=lightning, peer="lightning")},
    comparisons=[
        Comparison(of="leyden", metric="inexact", limit=0),
        Comparison(of="leyden", metric="exact"),
        Comparison(of="lightning", metric="exact"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_resume"))
