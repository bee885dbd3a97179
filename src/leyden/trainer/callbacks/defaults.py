"""Which progress bar and which summary a trainer gets that was given none."""

from leyden.core.optional import installed
from leyden.trainer.callbacks.model_summary import ModelSummary
from leyden.trainer.callbacks.progress.progress_bar import ProgressBar


def default_progress_bar() -> ProgressBar:
    """Return `RichProgressBar()`, or `PlainProgressBar()` where rich is not installed.

    Neither draws before the run begins; whether standard output is a terminal is looked at then.
    """
    if installed("rich"):
        from leyden.trainer.callbacks.progress.rich_progress import RichProgressBar  # rich costs 30 ms: only who draws pays

        return RichProgressBar()
    from leyden.trainer.callbacks.progress.plain_progress import PlainProgressBar

    return PlainProgressBar()


def default_model_summary() -> ModelSummary:
    """Return `RichModelSummary()`, or `ModelSummary()` where rich is not installed."""
    if installed("rich"):
        from leyden.trainer.callbacks.rich_model_summary import RichModelSummary

        return RichModelSummary()
    return ModelSummary()
