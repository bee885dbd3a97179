"""What `Trainer(plugins=…)` takes, at its documented path; it lives in `leyden.fabric`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.plugins import AsyncCheckpointIO as AsyncCheckpointIO
    from leyden.fabric.plugins import BitsandbytesPrecision as BitsandbytesPrecision
    from leyden.fabric.plugins import CheckpointIO as CheckpointIO
    from leyden.fabric.plugins import ClusterEnvironment as ClusterEnvironment
    from leyden.fabric.plugins import DeepSpeedPrecision as DeepSpeedPrecision
    from leyden.fabric.plugins import DoublePrecision as DoublePrecision
    from leyden.fabric.plugins import Float8Precision as Float8Precision
    from leyden.fabric.plugins import FSDPPrecision as FSDPPrecision
    from leyden.fabric.plugins import HalfPrecision as HalfPrecision
    from leyden.fabric.plugins import LayerSync as LayerSync
    from leyden.fabric.plugins import MixedPrecision as MixedPrecision
    from leyden.fabric.plugins import Precision as Precision
    from leyden.fabric.plugins import TorchCheckpointIO as TorchCheckpointIO
    from leyden.fabric.plugins import TorchSyncBatchNorm as TorchSyncBatchNorm
    from leyden.fabric.plugins import TransformerEnginePrecision as TransformerEnginePrecision
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AsyncCheckpointIO": "leyden.fabric.plugins",
            "BitsandbytesPrecision": "leyden.fabric.plugins",
            "CheckpointIO": "leyden.fabric.plugins",
            "ClusterEnvironment": "leyden.fabric.plugins",
            "DeepSpeedPrecision": "leyden.fabric.plugins",
            "DoublePrecision": "leyden.fabric.plugins",
            "FSDPPrecision": "leyden.fabric.plugins",
            "Float8Precision": "leyden.fabric.plugins",
            "HalfPrecision": "leyden.fabric.plugins",
            "LayerSync": "leyden.fabric.plugins",
            "MixedPrecision": "leyden.fabric.plugins",
            "Precision": "leyden.fabric.plugins",
            "TorchCheckpointIO": "leyden.fabric.plugins",
            "TorchSyncBatchNorm": "leyden.fabric.plugins",
            "TransformerEnginePrecision": "leyden.fabric.plugins",
        },
    )
