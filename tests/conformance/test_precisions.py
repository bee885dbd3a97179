import pytest
import torch

from leyden.fabric.precision import DoublePrecision, FSDPPrecision, HalfPrecision, MixedPrecision, Precision
from tests.conformance import precision_suite as suite

PRECISIONS = {
    "32-true": Precision,
    "64-true": DoublePrecision,
    "bf16-true": lambda: HalfPrecision("bf16-true"),
    "16-true": lambda: HalfPrecision("16-true"),
    "bf16-mixed": lambda: MixedPrecision("bf16-mixed", "cpu"),
    "16-mixed": lambda: MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)),
    "fsdp 32-true": FSDPPrecision,
    "fsdp bf16-true": lambda: FSDPPrecision("bf16-true"),
}


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision(name, check):
    check(PRECISIONS[name]())


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_keeps_its_state(name):
    suite.keeps_its_state(PRECISIONS[name](), PRECISIONS[name]())
