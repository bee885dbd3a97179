"""Precisions: in which dtype numbers are kept and computed."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.precision.bitsandbytes import BitsandbytesPrecision as BitsandbytesPrecision
    from leyden.fabric.precision.deepspeed import DeepSpeedPrecision as DeepSpeedPrecision
    from leyden.fabric.precision.double import DoublePrecision as DoublePrecision
    from leyden.fabric.precision.float8 import Float8Precision as Float8Precision
    from leyden.fabric.precision.half import HalfPrecision as HalfPrecision
    from leyden.fabric.precision.mixed import MixedPrecision as MixedPrecision
    from leyden.fabric.precision.precision import Precision as Precision
    from leyden.fabric.precision.registry import register_precision as register_precision
    from leyden.fabric.precision.sharded import FSDPPrecision as FSDPPrecision
    from leyden.fabric.precision.transformer_engine import TransformerEnginePrecision as TransformerEnginePrecision
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "BitsandbytesPrecision": ".bitsandbytes",
            "DeepSpeedPrecision": ".deepspeed",
            "DoublePrecision": ".double",
            "FSDPPrecision": ".sharded",
            "Float8Precision": ".float8",
            "HalfPrecision": ".half",
            "MixedPrecision": ".mixed",
            "Precision": ".precision",
            "TransformerEnginePrecision": ".transformer_engine",
            "register_precision": ".registry",
        },
    )
