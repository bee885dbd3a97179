"""Profilers: where the time of a run goes. Names are imported at their first use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.profilers.advanced import AdvancedProfiler as AdvancedProfiler
    from leyden.trainer.profilers.profiler import PassThroughProfiler as PassThroughProfiler
    from leyden.trainer.profilers.profiler import Profiler as Profiler
    from leyden.trainer.profilers.pytorch import PyTorchProfiler as PyTorchProfiler
    from leyden.trainer.profilers.simple import SimpleProfiler as SimpleProfiler
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AdvancedProfiler": ".advanced",
            "PassThroughProfiler": ".profiler",
            "Profiler": ".profiler",
            "PyTorchProfiler": ".pytorch",
            "SimpleProfiler": ".simple",
        },
    )
