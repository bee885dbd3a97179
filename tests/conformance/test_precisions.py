"""The precisions of fabric keep the promises."""

import torch

from leyden.fabric.precision import DoublePrecision, FSDPPrecision, HalfPrecision, MixedPrecision, Precision
from leyden.fabric.testing import PrecisionConformance


class TestFloat32(PrecisionConformance):
    def make(self):
        return Precision()


class TestFloat64(PrecisionConformance):
    def make(self):
        return DoublePrecision()


class TestBfloat16(PrecisionConformance):
    def make(self):
        return HalfPrecision("bf16-true")


class TestFloat16(PrecisionConformance):
    def make(self):
        return HalfPrecision("16-true")


class TestMixedBfloat16(PrecisionConformance):
    def make(self):
        return MixedPrecision("bf16-mixed", "cpu")


class TestMixedFloat16(PrecisionConformance):
    def make(self):
        return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))


class TestSharded(PrecisionConformance):
    def make(self):
        return FSDPPrecision()


class TestShardedBfloat16(PrecisionConformance):
    def make(self):
        return FSDPPrecision("bf16-true")
