import builtins
import logging

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError
from leyden.core.optional import installed
from leyden.fabric.precision import float8
from leyden.fabric.precision.float8 import Float8Precision, can_float8

needs_torchao = pytest.mark.skipif(not installed("torchao"), reason='torchao is not installed: pip install "leyden[float8]"')


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 24), nn.Linear(24, 32), nn.Linear(32, 16))


def test_a_missing_torchao_is_told_with_the_command(monkeypatch):
    monkeypatch.setattr(float8, "installed", lambda name: False)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "torchao":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "leyden\[float8\]"'):
        Float8Precision()


@needs_torchao
def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"accepted are 'tensorwise', 'rowwise'\. Did you mean 'rowwise'"):
        Float8Precision("row-wise")
    with pytest.raises(ConfigTypeError, match=r"expected a function \(name, module\)"):
        Float8Precision(filter="mlp")


@needs_torchao
def test_odd_sizes_and_the_last_layer_stay_in_bfloat16():
    chosen, kept = Float8Precision().choose(net())
    assert chosen == {"0"}
    assert kept == {"2": "48x24 is no multiple of 16", "3": "24x32 is no multiple of 16", "4": "the last layer"}


@needs_torchao
def test_a_filter_decides_also_on_the_last_layer():
    chosen, kept = Float8Precision(filter=lambda name, module: module.in_features == 32 and name != "0").choose(net())
    assert chosen == {"4"}
    assert kept["0"] == "filtered out"


@needs_torchao
def test_a_model_without_a_fitting_layer_is_refused():
    for module in (nn.Sequential(nn.Linear(3, 3)), nn.Conv2d(16, 16, 3)):
        with pytest.raises(ConfigError, match="no layer can compute in float8"):
            Float8Precision(device="cpu").convert_module(module)


@needs_torchao
@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_it_trains_close_to_bfloat16_with_the_optimizer_it_had(recipe, caplog):
    model, reference = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[0].weight.detach().clone()
    precision = Float8Precision(recipe, device="cpu")
    with pytest.warns(UserWarning, match="float8 is emulated on 'cpu'"), caplog.at_level(logging.INFO, "leyden"):
        model = precision.convert_module(model)
    assert "2 (48x24 is no multiple of 16)" in caplog.text
    assert type(model[0]).__name__ == "Float8Linear"
    assert type(model[4]) is nn.Linear
    assert list(model.state_dict()) == list(reference.state_dict())

    x = torch.randn(16, 32, dtype=torch.float64)
    with precision.forward_context():
        output = model(precision.convert_input(x))
    assert output.dtype is torch.bfloat16
    output = precision.convert_output(output)
    assert output.dtype is torch.float32
    torch.testing.assert_close(output, reference(x.float()), atol=0.1, rtol=0.1)
    precision.backward(output.square().mean(), model)
    optimizer.step()
    assert model[0].weight.dtype is torch.float32
    assert not torch.equal(model[0].weight, before)


@needs_torchao
def test_asking_for_emulation_is_no_reason_to_warn():
    assert type(Float8Precision(emulate=True, device="cpu").convert_module(net())[0]).__name__ == "Float8Linear"


def test_a_cpu_does_not_multiply_in_float8():
    assert not can_float8("cpu")
