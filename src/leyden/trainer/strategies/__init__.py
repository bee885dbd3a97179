"""Strategies, at their documented path; they live in `leyden.fabric.strategies`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.strategies import DDPStrategy as DDPStrategy
    from leyden.fabric.strategies import DeepSpeedStrategy as DeepSpeedStrategy
    from leyden.fabric.strategies import FSDPStrategy as FSDPStrategy
    from leyden.fabric.strategies import ModelParallelStrategy as ModelParallelStrategy
    from leyden.fabric.strategies import ParallelStrategy as ParallelStrategy
    from leyden.fabric.strategies import SingleDeviceStrategy as SingleDeviceStrategy
    from leyden.fabric.strategies import Strategy as Strategy
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "DDPStrategy": "leyden.fabric.strategies",
            "DeepSpeedStrategy": "leyden.fabric.strategies",
            "FSDPStrategy": "leyden.fabric.strategies",
            "ModelParallelStrategy": "leyden.fabric.strategies",
            "ParallelStrategy": "leyden.fabric.strategies",
            "SingleDeviceStrategy": "leyden.fabric.strategies",
            "Strategy": "leyden.fabric.strategies",
        },
    )
