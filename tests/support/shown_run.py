"""A run that only shows: the trainer's properties that progress bars read, and their hooks in the documented order.

Every batch takes `batch_seconds` of the fake clock. What a bar drew is read from the stream or the terminal it drew on.
"""

import io
from types import SimpleNamespace
from typing import Any, final

from tests.support.fake_clock import FakeClock


@final
class TerminalStream(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@final
class ShownRun:
    """Plays runs to a bar.

    Args:
        bar: The progress bar.
        clock: What time passes on.
        batch_seconds: How long a batch takes.
        attributes: More of a trainer's properties, instead of the defaults.
    """

    def __init__(self, bar: Any, clock: FakeClock | None = None, *, batch_seconds: float = 1.0, **attributes: Any) -> None:
        self.bar, self.clock, self.batch_seconds = bar, clock or FakeClock(), batch_seconds
        self.trainer = SimpleNamespace(
            is_global_zero=True,
            current_epoch=0,
            max_epochs=2,
            num_training_batches=10,
            num_sanity_val_batches=[2],
            num_val_batches=[4],
            num_test_batches=[4],
            num_predict_batches=[4],
            enable_validation=True,
            sanity_checking=False,
            loggers=[SimpleNamespace(version=3)],
            progress_bar_metrics={},
            lightning_module=None,
            state=SimpleNamespace(fn="fit"),
        )
        self.trainer.__dict__.update(attributes)

    def hook(self, name: str, *args: Any) -> None:
        """Call one hook of the bar."""
        getattr(self.bar, name)(self.trainer, None, *args)

    def fit(self, epochs: int = 2) -> None:
        """Run a whole fit with sanity check and a validation per epoch."""
        self.hook("setup", "fit")
        self.sanity_check()
        self.hook("on_train_start")
        for _ in range(epochs):
            self.hook("on_train_epoch_start")
            self.train()
            self.validation()
            self.hook("on_train_epoch_end")
            self.trainer.current_epoch += 1
        self.hook("on_train_end")
        self.hook("teardown", "fit")

    def train(self, first: int = 0, last: int | None = None) -> None:
        """Run training batches."""
        total = self.trainer.num_training_batches
        for index in range(first, (12 if total == float("inf") else total) if last is None else last):
            self.clock.advance(self.batch_seconds)
            self.trainer.progress_bar_metrics["loss"] = 1 / (index + 1)
            self.hook("on_train_batch_end", None, None, index)

    def sanity_check(self) -> None:
        self.trainer.sanity_checking = True
        self.hook("on_sanity_check_start")
        self.loop("validation", self.trainer.num_sanity_val_batches)
        self.hook("on_sanity_check_end")
        self.trainer.sanity_checking = False

    def validation(self) -> None:
        self.loop("validation", self.trainer.num_val_batches)

    def entry(self, stage: str, fn: str) -> None:
        """Run validate, test or predict."""
        self.trainer.state.fn = fn
        self.hook("setup", fn)
        self.loop(stage, getattr(self.trainer, f"num_{'val' if stage == 'validation' else stage}_batches"))
        self.hook("teardown", fn)

    def loop(self, stage: str, batches: list[Any]) -> None:
        """Run an evaluation loop over its loaders."""
        self.hook(f"on_{stage}_start")
        for loader, count in enumerate(batches):
            for index in range(6 if count == float("inf") else count):
                self.hook(f"on_{stage}_batch_start", None, index, loader)
                self.clock.advance(self.batch_seconds)
                self.hook(f"on_{stage}_batch_end", None, None, index, loader)
        self.hook(f"on_{stage}_end")
