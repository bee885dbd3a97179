"""Callbacks: each its own module; names are imported at their first use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.callbacks.device_stats_monitor import DeviceStatsMonitor as DeviceStatsMonitor
    from leyden.trainer.callbacks.finetuning import BackboneFinetuning as BackboneFinetuning
    from leyden.trainer.callbacks.finetuning import BaseFinetuning as BaseFinetuning
    from leyden.trainer.callbacks.garbage_collection import GarbageCollection as GarbageCollection
    from leyden.trainer.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler as GradientAccumulationScheduler
    from leyden.trainer.callbacks.hang_watchdog import HangWatchdog as HangWatchdog
    from leyden.trainer.callbacks.lambda_function import LambdaCallback as LambdaCallback
    from leyden.trainer.callbacks.non_finite_guard import NonFiniteGuard as NonFiniteGuard
    from leyden.trainer.callbacks.prediction_writer import BasePredictionWriter as BasePredictionWriter
    from leyden.trainer.callbacks.spike import SpikeDetection as SpikeDetection
    from leyden.trainer.callbacks.throughput_monitor import ThroughputMonitor as ThroughputMonitor
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
            "Callback": "leyden.trainer.core.callback",
            "Checkpoint": "leyden.trainer.core.callback",
            "DeviceStatsMonitor": ".device_stats_monitor",
            "EMAWeightAveraging": ".weight_averaging",
            "GarbageCollection": ".garbage_collection",
            "GradientAccumulationScheduler": ".gradient_accumulation_scheduler",
            "HangWatchdog": ".hang_watchdog",
            "LambdaCallback": ".lambda_function",
            "NonFiniteGuard": ".non_finite_guard",
            "SpikeDetection": ".spike",
            "ThroughputMonitor": ".throughput_monitor",
            "WeightAveraging": ".weight_averaging",
        },
    )
