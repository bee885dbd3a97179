"""Loaders: which sample goes where and when, and how to go on at exactly the next one."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.loading.loader import FabricDataLoader as FabricDataLoader
    from leyden.fabric.loading.loader import prepare_loader as prepare_loader
    from leyden.fabric.loading.samplers import DistributedSamplerWrapper as DistributedSamplerWrapper
    from leyden.fabric.loading.samplers import EpochSampler as EpochSampler
    from leyden.fabric.loading.transfer import move_data_to_device as move_data_to_device
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "DistributedSamplerWrapper": ".samplers",
            "EpochSampler": ".samplers",
            "FabricDataLoader": ".loader",
            "move_data_to_device": ".transfer",
            "prepare_loader": ".loader",
        },
    )
