"""Callbacks: each its own module; names are imported at their first use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.callbacks.batch_size_finder import BatchSizeFinder as BatchSizeFinder
    from leyden.trainer.callbacks.device_stats_monitor import DeviceStatsMonitor as DeviceStatsMonitor
    from leyden.trainer.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from leyden.trainer.callbacks.finetuning import BackboneFinetuning as BackboneFinetuning
    from leyden.trainer.callbacks.finetuning import BaseFinetuning as BaseFinetuning
    from leyden.trainer.callbacks.garbage_collection import GarbageCollection as GarbageCollection
    from leyden.trainer.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler as GradientAccumulationScheduler
    from leyden.trainer.callbacks.hang_watchdog import HangWatchdog as HangWatchdog
    from leyden.trainer.callbacks.lambda_function import LambdaCallback as LambdaCallback
    from leyden.trainer.callbacks.lr_finder import LearningRateFinder as LearningRateFinder
    from leyden.trainer.callbacks.lr_monitor import LearningRateMonitor as LearningRateMonitor
    from leyden.trainer.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from leyden.trainer.callbacks.model_summary import ModelSummary as ModelSummary
    from leyden.trainer.callbacks.non_finite_guard import NonFiniteGuard as NonFiniteGuard
    from leyden.trainer.callbacks.on_exception_checkpoint import OnExceptionCheckpoint as OnExceptionCheckpoint
    from leyden.trainer.callbacks.prediction_writer import BasePredictionWriter as BasePredictionWriter
    from leyden.trainer.callbacks.progress.plain_progress import PlainProgressBar as PlainProgressBar
    from leyden.trainer.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from leyden.trainer.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from leyden.trainer.callbacks.progress.rich_theme import RichProgressBarTheme as RichProgressBarTheme
    from leyden.trainer.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar
    from leyden.trainer.callbacks.rich_model_summary import RichModelSummary as RichModelSummary
    from leyden.trainer.callbacks.spike import SpikeDetection as SpikeDetection
    from leyden.trainer.callbacks.throughput_monitor import ThroughputMonitor as ThroughputMonitor
    from leyden.trainer.callbacks.timer import Timer as Timer
    from leyden.trainer.callbacks.weight_averaging import EMAWeightAveraging as EMAWeightAveraging
    from leyden.trainer.callbacks.weight_averaging import WeightAveraging as WeightAveraging
    from leyden.trainer.core.callback import Callback as Callback
    from leyden.trainer.core.callback import Checkpoint as Checkpoint
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "BackboneFinetuning": ".finetuning",
            "BaseFinetuning": ".finetuning",
            "BasePredictionWriter": ".prediction_writer",
            "BatchSizeFinder": ".batch_size_finder",
            "Callback": "leyden.trainer.core.callback",
            "Checkpoint": "leyden.trainer.core.callback",
            "DeviceStatsMonitor": ".device_stats_monitor",
            "EMAWeightAveraging": ".weight_averaging",
            "EarlyStopping": ".early_stopping",
            "GarbageCollection": ".garbage_collection",
            "GradientAccumulationScheduler": ".gradient_accumulation_scheduler",
            "HangWatchdog": ".hang_watchdog",
            "LambdaCallback": ".lambda_function",
            "LearningRateFinder": ".lr_finder",
            "LearningRateMonitor": ".lr_monitor",
            "ModelCheckpoint": ".model_checkpoint",
            "ModelSummary": ".model_summary",
            "NonFiniteGuard": ".non_finite_guard",
            "OnExceptionCheckpoint": ".on_exception_checkpoint",
            "PlainProgressBar": ".progress.plain_progress",
            "ProgressBar": ".progress.progress_bar",
            "RichModelSummary": ".rich_model_summary",
            "RichProgressBar": ".progress.rich_progress",
            "RichProgressBarTheme": ".progress.rich_theme",
            "SpikeDetection": ".spike",
            "TQDMProgressBar": ".progress.tqdm_progress",
            "ThroughputMonitor": ".throughput_monitor",
            "Timer": ".timer",
            "WeightAveraging": ".weight_averaging",
        },
    )
