import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnsupportedError
from leyden.fabric.precision.double import DoublePrecision
from leyden.fabric.precision.half import HalfPrecision
from leyden.fabric.precision.mixed import LossScaler, MixedPrecision
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.sharded import FSDPPrecision


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(Precision(), torch.float32), (DoublePrecision(), torch.float64), (HalfPrecision("bf16-true"), torch.bfloat16)],
)
def test_weights_inputs_and_new_tensors_share_the_dtype(precision, dtype):
    model = precision.convert_module(nn.Linear(2, 2))
    with precision.forward_context():
        output = model(precision.convert_input(torch.ones(1, 2)))
    with precision.tensor_init_context():
        assert torch.ones(1).dtype is dtype
    assert model.weight.dtype is output.dtype is precision.compute_dtype is dtype
    assert precision.convert_output(output).dtype is torch.float32


@pytest.mark.parametrize("precision", [DoublePrecision(), HalfPrecision("16-true")])
def test_the_default_dtype_comes_back_after_an_exception(precision):
    with pytest.raises(KeyError), precision.forward_context():
        raise KeyError
    assert torch.get_default_dtype() is torch.float32


def test_only_floating_tensors_are_converted():
    batch = DoublePrecision().convert_input({"x": torch.ones(1), "y": torch.ones(1, dtype=torch.long)})
    assert (batch["x"].dtype, batch["y"].dtype) == (torch.float64, torch.long)


def test_mixed_computes_in_16_bits_and_keeps_float32_weights():
    precision = MixedPrecision("bf16-mixed", "cpu")
    model = precision.convert_module(nn.Linear(2, 2))
    with precision.forward_context():
        output = model(torch.ones(1, 2))
    assert output.dtype is torch.bfloat16
    assert model.weight.dtype is torch.float32
    assert precision.convert_output(output).dtype is torch.float32
    assert precision.scaler is None


def test_a_scaler_with_bfloat16_is_refused():
    with pytest.raises(ConfigError, match="does not use a scaler"):
        MixedPrecision("bf16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match="does not use a scaler"):
        FSDPPrecision("bf16-mixed", scaler=torch.amp.GradScaler("cpu"))


def scaled_step(precision, model, optimizer, gradient=None):
    loss = model(torch.ones(1, 2)).sum()
    precision.backward(loss, model)
    if gradient is not None:
        for parameter in model.parameters():
            parameter.grad.fill_(gradient)
    precision.optimizer_step(optimizer)
    optimizer.zero_grad()


def test_a_step_with_overflow_is_skipped_and_says_so():
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=4.0))
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.clone()
    scaled_step(precision, model, optimizer, gradient=float("inf"))
    assert torch.equal(model.weight, before)
    assert (optimizer.last_step_skipped, optimizer.skipped_steps) == (True, 1)
    scaled_step(precision, model, optimizer)
    assert not torch.equal(model.weight, before)
    assert (optimizer.last_step_skipped, optimizer.skipped_steps) == (False, 1)


def test_clip_and_step_unscale_once_between_them():
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    precision.backward(model(torch.ones(1, 2)).sum(), model)
    precision.unscale_gradients(optimizer)
    precision.unscale_gradients(optimizer)
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    precision.optimizer_step(optimizer)
    precision.backward(model(torch.ones(1, 2)).sum(), model)
    precision.unscale_gradients(optimizer)


def test_lbfgs_does_not_go_with_a_scaler():
    precision = MixedPrecision("16-mixed", "cpu")
    with pytest.raises(ConfigTypeError, match="LBFGS optimizer are not compatible"):
        precision.optimizer_step(torch.optim.LBFGS(nn.Linear(2, 1).parameters()))


def test_an_optimizer_that_unscales_itself_is_not_unscaled_again():
    optimizer = torch.optim.AdamW(nn.Linear(2, 1).parameters(), fused=True)
    with pytest.raises(UnsupportedError, match="fused=False"):
        MixedPrecision("16-mixed", "cpu").unscale_gradients(optimizer)


def test_a_collapsed_scale_warns_and_then_stops():
    scaler = LossScaler(torch.amp.GradScaler("cpu", init_scale=1e-12))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)

    def skip():
        scaler.scaler.scale(torch.ones(1))
        optimizer.param_groups[0]["params"][0].grad = torch.tensor([float("nan")])
        scaler.step(optimizer)

    for _ in range(49):
        skip()
    with pytest.warns(UserWarning, match="50 skipped steps in a row"):
        skip()
    with pytest.raises(StateError, match="bf16-mixed"):
        skip()


def test_the_loss_scale_survives_a_checkpoint():
    one = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=4.0))
    one.backward(torch.ones(1, requires_grad=True).sum(), None)
    two = MixedPrecision("16-mixed", "cpu")
    two.load_state_dict(one.state_dict())
    assert two.state_dict()["scale"] == 4.0


def test_a_subclass_is_plain_only_if_it_says_so():
    class Loud(Precision):
        def pre_backward(self, tensor, module):
            raise KeyError

    class Quiet(Precision):
        plain = True

    assert not Loud.plain
    assert Quiet.plain


def test_sharded_precision_reduces_in_float32():
    assert FSDPPrecision("bf16-true").policy().reduce_dtype is torch.float32
    assert FSDPPrecision("bf16-mixed").mixed_precision_config.reduce_dtype is torch.bfloat16
    assert FSDPPrecision("32-true").policy().param_dtype is None
    with pytest.raises(ConfigError, match="not supported with FSDP"):
        FSDPPrecision("64-true")
