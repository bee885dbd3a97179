"""With `AsyncCheckpointIO` a `Trainer` step that saves 100 MB is held up for at most 30 % of a synchronous save.

One process saves four times from a callback, each time when the file before is complete. The first save, which allocates the
copies, is a number of its own. Wall time: a save waits for the disk.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fits import fit, in_new_folder
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.large import stack

WIDTH, LAYERS = 2048, 6
SAVES, STEPS_BETWEEN = 4, 3
PATIENCE_SECONDS = 120


def _module(base: Any, width: int) -> Any:
    import torch

    class Wide(base):
        def __init__(self) -> None:
            super().__init__()
            self.model = stack(width, LAYERS)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.001)

    return Wide()


def _saver(base: Any, folder: str, blocked: list[float]) -> Any:
    """Return a callback that saves after every third batch and notes how long that took."""

    class Saves(base):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step % STEPS_BETWEEN:
                return
            if blocked:
                _wait_for(Path(folder) / f"{len(blocked) - 1}.ckpt")
            start = time.perf_counter()
            trainer.save_checkpoint(f"{folder}/{len(blocked)}.ckpt")
            blocked.append(time.perf_counter() - start)

    return Saves()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} has not appeared in {PATIENCE_SECONDS} seconds")
        time.sleep(0.01)


def _saving(trainer: Any, module: Any, callback: Any, plugins: list[Any], width: int) -> dict[str, float]:
    import torch

    def measure(folder: str) -> dict[str, float]:
        blocked: list[float] = []
        data = [torch.ones(4, width)] * (SAVES * STEPS_BETWEEN)
        saver = _saver(callback, folder, blocked)
        loaded = torch.utils.data.DataLoader(data, batch_size=None)
        fit(trainer, _module(module, width), loaded, callbacks=[saver], plugins=plugins, default_root_dir=folder)
        _wait_for(Path(folder) / f"{SAVES - 1}.ckpt")
        size = (Path(folder) / f"{SAVES - 1}.ckpt").stat().st_size
        return {"seconds": statistics.median(blocked[1:]), "first_seconds": blocked[0], "bytes": size}

    return in_new_folder(measure)


def leyden(*, is_asynchronous: bool, width: int = WIDTH) -> dict[str, float]:
    """Measure Leyden's `Trainer`."""
    from leyden.trainer import Callback, LightningModule, Trainer
    from leyden.trainer.plugins import AsyncCheckpointIO

    return _saving(Trainer, LightningModule, Callback, [AsyncCheckpointIO()] if is_asynchronous else [], width)


def lightning(*, is_asynchronous: bool, width: int = WIDTH) -> dict[str, float]:
    """Measure Lightning's `Trainer`."""
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.plugins.io import AsyncCheckpointIO

    return _saving(Trainer, LightningModule, Callback, [AsyncCheckpointIO()] if is_asynchronous else [], width)


def _with(function: Callable[..., dict[str, float]], *, is_asynchronous: bool) -> Callable[[], dict[str, float]]:
    return lambda: function(is_asynchronous=is_asynchronous)


BENCHMARK = Benchmark(
    claim="a Trainer's asynchronous save of 100 MB blocks for at most 0.30 of a synchronous one",
    variants={
        "synchronous": Variant(run=_with(leyden, is_asynchronous=False), cores=2),
        "asynchronous": Variant(run=_with(leyden, is_asynchronous=True), cores=2),
        "lightning synchronous": Variant(run=_with(lightning, is_asynchronous=False), peer="lightning", cores=2),
        "lightning asynchronous": Variant(run=_with(lightning, is_asynchronous=True), peer="lightning", cores=2),
    },
    comparisons=[
        Comparison(of="asynchronous", to="synchronous", limit=0.30),
        Comparison(of="asynchronous", to="synchronous", metric="first_seconds"),
        Comparison(of="lightning asynchronous", to="lightning synchronous"),
        Comparison(of="synchronous", to="lightning synchronous"),
        Comparison(of="asynchronous", to="lightning asynchronous"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_save"))
