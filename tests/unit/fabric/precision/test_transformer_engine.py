"""The library builds with CUDA only, so a stand-in with its documented interface takes its place; the last test needs the real one."""

import contextlib
import dataclasses
import sys
import types

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError, UnavailableError
from leyden.core.optional import installed
from leyden.fabric.precision.transformer_engine import TransformerEnginePrecision

HAS_ALL = installed("transformer_engine") and torch.cuda.is_available()


class FakeLinear(nn.Linear):
    pass


class FakeLayerNorm(nn.LayerNorm):
    pass


@dataclasses.dataclass
class FakeDelayedScaling:
    margin: int = 0
    fp8_format: str = "HYBRID"
    amax_history_len: int = 1024


@pytest.fixture
def library(monkeypatch):
    """Puts the stand-in where the library would be, and notes the contexts that are entered."""
    root, pytorch, common, recipe = (
        types.ModuleType(name) for name in ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.common", "recipe")
    )
    pytorch.Linear, pytorch.LayerNorm, pytorch.entered = FakeLinear, FakeLayerNorm, []

    @contextlib.contextmanager
    def fp8_autocast(*, enabled, fp8_recipe):
        pytorch.entered.append((enabled, fp8_recipe, torch.get_default_dtype()))
        yield

    pytorch.fp8_autocast = fp8_autocast
    recipe.DelayedScaling, recipe.Recipe = FakeDelayedScaling, FakeDelayedScaling
    recipe.Format = types.SimpleNamespace(E4M3="the format E4M3")
    names = {"transformer_engine": root, "transformer_engine.pytorch": pytorch, "transformer_engine.common": common}
    for name, module in {**names, "transformer_engine.common.recipe": recipe}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("is_available", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    # For the test only: whoever looks at all subclasses of nn.Module later would try to import the module.
    monkeypatch.setattr(FakeLinear, "__module__", "transformer_engine.pytorch.module.linear")
    monkeypatch.setattr(FakeLayerNorm, "__module__", "transformer_engine.pytorch.module.layernorm")
    return pytorch


@pytest.mark.skipif(installed("transformer_engine"), reason="transformer_engine is installed, so it cannot be missing")
def test_a_missing_library_is_told_with_the_command():
    with pytest.raises(MissingDependencyError, match=r"pip install transformer_engine\[pytorch\]"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16)


def test_a_machine_without_cuda_is_told_what_works_there(library, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match=r"needs a CUDA device.*Float8Precision\(\)"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16)


def test_arguments_that_cannot_be_are_refused(library):
    with pytest.raises(ConfigError, match=r"weights_dtype=torch\.int8"):
        TransformerEnginePrecision(weights_dtype=torch.int8)
    with pytest.raises(ConfigError, match=r"fallback_compute_dtype=torch\.float64"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16, fallback_compute_dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"'margins'.*DelayedScaling takes 'margin', 'fp8_format'"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16, recipe={"margins": 1})
    with pytest.raises(ConfigTypeError, match="expected a recipe"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16, recipe="fast")


def test_a_dictionary_becomes_a_recipe_and_names_become_formats(library):
    precision = TransformerEnginePrecision(weights_dtype=torch.float16, recipe={"fp8_format": "E4M3", "margin": 2})
    assert precision.recipe == FakeDelayedScaling(margin=2, fp8_format="the format E4M3")
    assert precision.precision == "transformer-engine-float16"
    given = FakeDelayedScaling()
    assert TransformerEnginePrecision(weights_dtype=torch.bfloat16, recipe=given).recipe is given


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 17), nn.Linear(17, 16, bias=False), nn.LayerNorm((1, 16)))


def test_layers_of_fitting_sizes_are_replaced_with_their_weights(library):
    model = net()
    original = model[0].weight.detach().clone()
    model = TransformerEnginePrecision(weights_dtype=torch.bfloat16).convert_module(model)
    assert [type(layer) for layer in model] == [FakeLinear, FakeLayerNorm, nn.Linear, nn.Linear, nn.LayerNorm]
    assert torch.equal(model[0].weight, original.bfloat16())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("replace", "expected"), [(None, nn.Linear), (True, FakeLinear), (False, nn.Linear)])
def test_a_model_with_layers_of_the_library_is_left_alone_unless_asked(library, replace, expected):
    model = nn.Sequential(FakeLinear(16, 16), nn.Linear(16, 16))
    precision = TransformerEnginePrecision(weights_dtype=torch.bfloat16, replace_layers=replace)
    assert type(precision.convert_module(model)[1]) is expected


def test_forward_runs_in_the_librarys_context_and_gives_the_dtype_back(library):
    precision = TransformerEnginePrecision(weights_dtype=torch.bfloat16)
    with pytest.raises(KeyError), precision.forward_context():
        raise KeyError
    assert library.entered == [(True, None, torch.bfloat16)]
    assert torch.get_default_dtype() is torch.float32
    assert precision.convert_input(torch.ones(1)).dtype is torch.bfloat16
    assert precision.convert_output(torch.ones(1, dtype=torch.bfloat16)).dtype is torch.float32
    with precision.module_init_context():
        assert nn.Linear(1, 1).weight.dtype is torch.bfloat16


@pytest.mark.skipif(not HAS_ALL, reason="needs a CUDA device and transformer_engine, which builds only with CUDA's compiler")
def test_the_real_library_trains():
    precision = TransformerEnginePrecision(weights_dtype=torch.bfloat16)
    model = precision.convert_module(nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32))).cuda()
    with precision.forward_context():
        output = model(precision.convert_input(torch.randn(32, 32, device="cuda")))
    precision.backward(precision.convert_output(output).square().mean(), model)
    assert model[0].weight.grad is not None
