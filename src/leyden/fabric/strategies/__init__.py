"""Strategies: how one model is trained on the devices at hand."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.strategies.ddp import DDPStrategy as DDPStrategy
    from leyden.fabric.strategies.deepspeed import DeepSpeedStrategy as DeepSpeedStrategy
    from leyden.fabric.strategies.fsdp import FSDPStrategy as FSDPStrategy
    from leyden.fabric.strategies.model_parallel import ModelParallelStrategy as ModelParallelStrategy
    from leyden.fabric.strategies.parallel import ParallelStrategy as ParallelStrategy
    from leyden.fabric.strategies.registry import STRATEGY_REGISTRY as STRATEGY_REGISTRY
    from leyden.fabric.strategies.single import SingleDeviceStrategy as SingleDeviceStrategy
    from leyden.fabric.strategies.strategy import Strategy as Strategy
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "DDPStrategy": ".ddp",
            "DeepSpeedStrategy": ".deepspeed",
            "FSDPStrategy": ".fsdp",
            "ModelParallelStrategy": ".model_parallel",
            "ParallelStrategy": ".parallel",
            "STRATEGY_REGISTRY": ".registry",
            "SingleDeviceStrategy": ".single",
            "Strategy": ".strategy",
        },
    )
