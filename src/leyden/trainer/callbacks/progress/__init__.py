"""Progress bars: each its own module; names are imported at their first use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.callbacks.progress.plain_progress import PlainProgressBar as PlainProgressBar
    from leyden.trainer.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from leyden.trainer.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from leyden.trainer.callbacks.progress.rich_theme import RichProgressBarTheme as RichProgressBarTheme
    from leyden.trainer.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "PlainProgressBar": ".plain_progress",
            "ProgressBar": ".progress_bar",
            "RichProgressBar": ".rich_progress",
            "RichProgressBarTheme": ".rich_theme",
            "TQDMProgressBar": ".tqdm_progress",
        },
    )
