"""`StagedProgressBar`: turns the trainer's hooks into rows on a `Screen`, one row a stage, and limits how often they draw.

A row is begun, restarted for every epoch or loader, moved every `refresh_rate` batches, drawn at most ten times a second,
and ended. A resumed run does not call the start hooks of what it is in the middle of; a row then begins with its first batch.
"""

import math
from abc import abstractmethod
from typing import Any, Literal, Protocol

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.progress.progress_bar import ProgressBar, write_text

Stage = Literal["sanity", "train", "validation", "test", "predict"]
PAUSE_SECONDS = 0.1
"""The least time between two drawings: eyes see no more, and a drawing costs as much as ten small training steps."""


class Screen(Protocol):
    """What rows are drawn on: a terminal, a notebook, lines of a file. Made when the first row begins, stopped after the last."""

    def begin(self, stage: Stage) -> None:
        """Make a row."""
        ...

    def restart(self, stage: Stage, description: str, total: int | None) -> None:
        """Set a row to 0 of `total` (None: nobody knows)."""
        ...

    def move(self, stage: Stage, done: int) -> None:
        """Note a count; draw nothing."""
        ...

    def draw(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        """Draw a row and the metrics of the run."""
        ...

    def finish(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        """Note that an epoch's row is complete: it restarts or ends next."""
        ...

    def end(self, stage: Stage) -> None:
        """Take a row away, or leave it as it is for good."""
        ...

    def print(self, text: str) -> None:
        """Print beside the rows."""
        ...

    def stop(self) -> None:
        """Give the terminal back; after a failure with rows still there."""
        ...


class StagedProgressBar(ProgressBar):  # noqa: SIZE003 - a method for each hook that moves a bar
    """Base of the bars that draw one row for each stage.

    Args:
        refresh_rate: After how many batches the row is looked at; 0 shows nothing.
        clock: What tells the time.

    Raises:
        ConfigError: A negative refresh rate.
    """

    def __init__(self, refresh_rate: int = 1, *, clock: Clock | None = None) -> None:
        super().__init__()
        if refresh_rate < 0:
            raise ConfigError(f"refresh_rate={refresh_rate} counts batches: 1 looks at each, 20 at every twentieth, 0 shows nothing.")
        self._refresh_rate = refresh_rate
        self._clock: Clock = clock or SystemClock()
        self._screen: Screen | None = None
        self._rows: dict[Stage, int] = {}  # stages that have a row now -> batches done
        self._totals: dict[Stage, int | None] = {}  # as they were when the row restarted
        self._next_drawing = -math.inf
        self._next_train: float = 0  # the count of batches at which to look next: all that a quiet batch compares
        self._next_eval: float = 0

    @property
    def refresh_rate(self) -> int:
        """After how many batches the row is looked at."""
        return self._refresh_rate

    @property
    def is_enabled(self) -> bool:
        return self._enabled and self._refresh_rate > 0

    def disable(self) -> None:
        super().disable()
        self._stop_all()
        self._next_train = self._next_eval = math.inf

    def enable(self) -> None:
        super().enable()
        self._next_train = self._next_eval = 0 if self.is_enabled else math.inf

    @abstractmethod
    def _make_screen(self) -> Screen:
        """Return what the rows of this run are drawn on."""

    def print(self, *args: Any, sep: str = " ", end: str = "\n", **kwargs: Any) -> None:
        if self._screen is None or kwargs.get("file") is not None:
            write_text(*args, sep=sep, end=end, **kwargs)
        else:
            self._screen.print(sep.join(str(argument) for argument in args) + end)

    def _description(self, stage: Stage) -> str:
        """Return the words before a row that restarts now."""
        if stage == "sanity":
            return self.sanity_check_description
        if stage == "train":
            last = self.trainer.max_epochs
            return f"Epoch {self.trainer.current_epoch}" + (f"/{last - 1}" if last is not None and last > 0 else "")
        name = {"validation": self.validation_description, "test": self.test_description, "predict": self.predict_description}[stage]
        several = not isinstance(self._batches(stage), (int, float)) and len(self._batches(stage)) > 1
        return f"{name} DataLoader {self._current_eval_dataloader_idx or 0}" if several else name

    # -- the machine ---------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._stop_all()  # rows of an earlier run that was cut off
        self._next_drawing = -math.inf
        self._next_train = self._next_eval = 0 if self.is_enabled else math.inf

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._stop_all()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._stop_all()

    def _stop_all(self) -> None:
        self._rows.clear()
        self.reset_dataloader_idx_tracker()
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.stop()

    def _open(self, stage: Stage) -> None:
        if self.is_enabled and stage not in self._rows:
            if self._screen is None:
                self._screen = self._make_screen()
            self._rows[stage] = 0
            self._screen.begin(stage)

    def _reset(self, stage: Stage) -> float:
        """Restart a row; return the count of batches at which to look first."""
        self._open(stage)
        if self._screen is not None:
            self._rows[stage] = 0
            self._totals[stage] = total = self._total(stage)
            self._screen.restart(stage, self._description(stage), total)
            self._draw_if_due(stage)
        return self._following(stage, 0)

    def _move(self, stage: Stage, done: int) -> float:
        """Note `done` batches, draw if it is time; return the count at which to look again."""
        if stage not in self._rows:
            self._reset(stage)
        if self._screen is None:
            return math.inf
        self._rows[stage] = done
        self._screen.move(stage, done)
        if self._clock.monotonic() >= self._next_drawing:
            self._draw_if_due(stage)
        return self._following(stage, done)

    def _following(self, stage: Stage, done: int) -> float:
        """Return the count at which to look next."""
        if self._screen is None:
            return math.inf
        following = done - done % self._refresh_rate + self._refresh_rate
        total = self._totals[stage]
        return following if total is None or done >= total else min(following, total)

    def _draw_if_due(self, stage: Stage) -> None:
        if self._screen is not None and stage in self._rows and self._clock.monotonic() >= self._next_drawing:
            self._screen.draw(stage, self._rows[stage], self._metrics())
            self._next_drawing = self._clock.monotonic() + PAUSE_SECONDS

    def _finish(self, stage: Stage) -> None:
        if self._screen is not None and stage in self._rows:
            self._screen.finish(stage, self._rows[stage], self._metrics())

    def _close(self, stage: Stage) -> None:
        if self._screen is not None and self._rows.pop(stage, None) is not None:
            self._screen.end(stage)
        if not self._rows and stage != "sanity":  # training follows on the same screen
            self._stop_all()

    def _metrics(self) -> dict[str, Any]:
        return self.get_metrics(self.trainer, self.trainer.lightning_module)

    def _total(self, stage: Stage) -> int | None:
        batches = self._batches(stage)
        total = batches if stage == "train" else self._of_current_loader(batches)
        return None if math.isinf(total) else int(total)

    def _batches(self, stage: Stage) -> Any:
        trainer = self.trainer
        if stage == "train":
            return trainer.num_training_batches
        if stage == "sanity":
            return trainer.num_sanity_val_batches
        return {"validation": trainer.num_val_batches, "test": trainer.num_test_batches, "predict": trainer.num_predict_batches}[stage]

    # -- training ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._reset("train")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._next_train = self._reset("train")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 >= self._next_train:
            self._next_train = self._move("train", batch_idx + 1)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._finish("train")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close("train")

    # -- evaluation ----------------------------------------------------------------------------------------------

    def _on_eval_batch_start(self, stage: Stage, dataloader_idx: int) -> None:
        if dataloader_idx != self._current_eval_dataloader_idx:
            if self._current_eval_dataloader_idx is not None:
                self._finish(stage)
            self._current_eval_dataloader_idx = dataloader_idx
            self._next_eval = self._reset(stage)

    def _on_eval_end(self, stage: Stage) -> None:
        self._finish(stage)
        self._close(stage)
        self.reset_dataloader_idx_tracker()
        self._draw_if_due("train")

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._open("sanity")

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        self._on_eval_end("sanity")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._open("validation")

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._on_eval_batch_start("sanity" if trainer.sanity_checking else "validation", dataloader_idx)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx + 1 >= self._next_eval:
            self._next_eval = self._move("sanity" if trainer.sanity_checking else "validation", batch_idx + 1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._on_eval_end("validation")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._open("test")

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._on_eval_batch_start("test", dataloader_idx)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx + 1 >= self._next_eval:
            self._next_eval = self._move("test", batch_idx + 1)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._on_eval_end("test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._open("predict")

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._on_eval_batch_start("predict", dataloader_idx)

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx + 1 >= self._next_eval:
            self._next_eval = self._move("predict", batch_idx + 1)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._on_eval_end("predict")
