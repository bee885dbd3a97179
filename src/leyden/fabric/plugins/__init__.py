"""What `Fabric(plugins=…)` takes: precisions, checkpoint stores, cluster environments. The documented paths; nothing lives here."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO as AsyncCheckpointIO
    from leyden.fabric.checkpoint.plugin import CheckpointIO as CheckpointIO
    from leyden.fabric.checkpoint.plugin import TorchCheckpointIO as TorchCheckpointIO
    from leyden.fabric.environments.environment import ClusterEnvironment as ClusterEnvironment
    from leyden.fabric.layer_sync import LayerSync as LayerSync
    from leyden.fabric.layer_sync import TorchSyncBatchNorm as TorchSyncBatchNorm
    from leyden.fabric.precision.bitsandbytes import BitsandbytesPrecision as BitsandbytesPrecision
    from leyden.fabric.precision.deepspeed import DeepSpeedPrecision as DeepSpeedPrecision
    from leyden.fabric.precision.double import DoublePrecision as DoublePrecision
    from leyden.fabric.precision.float8 import Float8Precision as Float8Precision
    from leyden.fabric.precision.half import HalfPrecision as HalfPrecision
    from leyden.fabric.precision.mixed import MixedPrecision as MixedPrecision
    from leyden.fabric.precision.precision import Precision as Precision
    from leyden.fabric.precision.sharded import FSDPPrecision as FSDPPrecision
    from leyden.fabric.precision.transformer_engine import TransformerEnginePrecision as TransformerEnginePrecision
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AsyncCheckpointIO": "..checkpoint.plugin",
            "BitsandbytesPrecision": "..precision.bitsandbytes",
            "CheckpointIO": "..checkpoint.plugin",
            "ClusterEnvironment": "..environments.environment",
            "DeepSpeedPrecision": "..precision.deepspeed",
            "DoublePrecision": "..precision.double",
            "FSDPPrecision": "..precision.sharded",
            "Float8Precision": "..precision.float8",
            "HalfPrecision": "..precision.half",
            "LayerSync": "..layer_sync",
            "MixedPrecision": "..precision.mixed",
            "Precision": "..precision.precision",
            "TorchCheckpointIO": "..checkpoint.plugin",
            "TorchSyncBatchNorm": "..layer_sync",
            "TransformerEnginePrecision": "..precision.transformer_engine",
        },
    )
