"""`ProgressBar`: what every bar knows. Totals, descriptions, metrics; nothing is drawn here.

Derive from it for a bar of your own and override the hooks you need; it reads only public properties of the trainer.
"""

import sys
import warnings
from typing import Any

from leyden.core.errors import StateError
from leyden.trainer.core.callback import Callback


class ProgressBar(Callback):
    r"""Base of all progress bars: works on rank 0 alone.

    Example:
        ```python
        class Percent(ProgressBar):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                self.print(f"{100 * (batch_idx + 1) / self.total_train_batches:.0f} %", end="\r")
        ```
    """

    def __init__(self) -> None:
        self._trainer: Any = None
        self._enabled = True
        self._current_eval_dataloader_idx: int | None = None

    # -- what runs -----------------------------------------------------------------------------------------------

    @property
    def trainer(self) -> Any:
        """The trainer whose run is shown.

        Raises:
            StateError: No run has begun.
        """
        if self._trainer is None:
            raise StateError(f"{type(self).__name__}.trainer is read before a run has begun: it is set in `setup`.")
        return self._trainer

    @property
    def is_enabled(self) -> bool:
        """Whether this bar shows anything."""
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        """Whether this bar shows nothing."""
        return not self.is_enabled

    def disable(self) -> None:
        """Show nothing from now on; the trainer calls it on all ranks but 0."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *args: Any, sep: str = " ", end: str = "\n", **kwargs: Any) -> None:
        """Print without tearing the bar.

        Args:
            args: What to print.
            sep: Between them.
            end: After them.
            kwargs: More of what `print` takes.
        """
        write_text(*args, sep=sep, end=end, **kwargs)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._trainer = trainer
        if not trainer.is_global_zero:
            self.disable()

    # -- words ---------------------------------------------------------------------------------------------------

    @property
    def sanity_check_description(self) -> str:
        """How the sanity check is called."""
        return "Sanity Checking"

    @property
    def train_description(self) -> str:
        """How training is called."""
        return "Training"

    @property
    def validation_description(self) -> str:
        """How validation is called."""
        return "Validation"

    @property
    def test_description(self) -> str:
        """How testing is called."""
        return "Testing"

    @property
    def predict_description(self) -> str:
        """How prediction is called."""
        return "Predicting"

    # -- numbers -------------------------------------------------------------------------------------------------

    @property
    def total_train_batches(self) -> int | float:
        """Batches of a training epoch; `inf` if nobody knows."""
        return self.trainer.num_training_batches

    @property
    def total_val_batches(self) -> int | float:
        """Batches of one validation over all loaders; `inf` if nobody knows, 0 without validation."""
        return sum(self.trainer.num_val_batches) if self.trainer.enable_validation else 0

    @property
    def total_val_batches_current_dataloader(self) -> int | float:
        """Batches of the validation loader that runs, in the sanity check too; `inf` if nobody knows."""
        return self._of_current_loader(
            self.trainer.num_sanity_val_batches if self.trainer.sanity_checking else self.trainer.num_val_batches
        )

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """Batches of the test loader that runs; `inf` if nobody knows."""
        return self._of_current_loader(self.trainer.num_test_batches)

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Batches of the prediction loader that runs; `inf` if nobody knows."""
        return self._of_current_loader(self.trainer.num_predict_batches)

    def _of_current_loader(self, batches: Any) -> int | float:
        return batches if isinstance(batches, (int, float)) else batches[self._current_eval_dataloader_idx or 0]

    def has_dataloader_changed(self, dataloader_idx: int) -> bool:
        """Return whether another loader runs than at the last call, and remember it."""
        previous, self._current_eval_dataloader_idx = self._current_eval_dataloader_idx, dataloader_idx
        return previous != dataloader_idx

    def reset_dataloader_idx_tracker(self) -> None:
        """Forget which loader runs."""
        self._current_eval_dataloader_idx = None

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar: the logger's version as `v_num`, then what was logged with `prog_bar=True`.

        Override it to add or leave out something.

        Example:
            ```python
            class Bar(RichProgressBar):
                def get_metrics(self, trainer, pl_module):
                    items = super().get_metrics(trainer, pl_module)
                    items.pop("v_num", None)
                    return items
            ```
        """
        standard, logged = get_standard_metrics(trainer), trainer.progress_bar_metrics
        if twice := sorted(standard.keys() & logged.keys()):
            warnings.warn(
                f"The progress bar already shows a metric with the name(s) {', '.join(twice)}; the logged values replace it. "
                "Log them under another name, or drop ours in an own `get_metrics`.",
                stacklevel=2,
            )
        return {**standard, **logged}


def get_standard_metrics(trainer: Any) -> dict[str, int | str]:
    """Return what every bar shows: `v_num`, the first logger's version, of a text its last four characters.

    Nothing without loggers.
    """
    version = trainer.loggers[0].version if trainer.loggers else None
    if version is None:
        return {}
    return {"v_num": version[-4:] if isinstance(version, str) else version}


def write_text(*args: Any, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False) -> None:
    """Write as `print` does, to standard output if no file is given."""
    stream = sys.stdout if file is None else file
    stream.write(sep.join(str(argument) for argument in args) + end)
    if flush:
        stream.flush()
