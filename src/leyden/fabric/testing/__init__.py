"""Conformance kits for authors of plug-ins: subclass one, say how yours is made, and pytest runs the promises against it.

A kit is a plain class whose `test_*` methods need nothing but a runner that knows pytest's `tmp_path`; importing it imports no
pytest. Fabric's own accelerators, environments, precisions, strategies, checkpoint plug-ins and loggers pass the same kits.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.testing.accelerator import AcceleratorConformance as AcceleratorConformance
    from leyden.fabric.testing.checkpoint_fakes import FailingCheckpointIO as FailingCheckpointIO
    from leyden.fabric.testing.checkpoint_fakes import FullDiskCheckpointIO as FullDiskCheckpointIO
    from leyden.fabric.testing.checkpoint_fakes import MemoryCheckpointIO as MemoryCheckpointIO
    from leyden.fabric.testing.checkpoint_fakes import SlowCheckpointIO as SlowCheckpointIO
    from leyden.fabric.testing.checkpoint_io import CheckpointIOConformance as CheckpointIOConformance
    from leyden.fabric.testing.collective import CollectiveConformance as CollectiveConformance
    from leyden.fabric.testing.environment import EnvironmentConformance as EnvironmentConformance
    from leyden.fabric.testing.logger import LoggerConformance as LoggerConformance
    from leyden.fabric.testing.logger import ThreadedLoggerConformance as ThreadedLoggerConformance
    from leyden.fabric.testing.precision import PrecisionConformance as PrecisionConformance
    from leyden.fabric.testing.ranks import run_in_ranks as run_in_ranks
    from leyden.fabric.testing.strategy import StrategyConformance as StrategyConformance
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AcceleratorConformance": ".accelerator",
            "CheckpointIOConformance": ".checkpoint_io",
            "CollectiveConformance": ".collective",
            "EnvironmentConformance": ".environment",
            "FailingCheckpointIO": ".checkpoint_fakes",
            "FullDiskCheckpointIO": ".checkpoint_fakes",
            "LoggerConformance": ".logger",
            "MemoryCheckpointIO": ".checkpoint_fakes",
            "PrecisionConformance": ".precision",
            "SlowCheckpointIO": ".checkpoint_fakes",
            "StrategyConformance": ".strategy",
            "ThreadedLoggerConformance": ".logger",
            "run_in_ranks": ".ranks",
        },
    )
