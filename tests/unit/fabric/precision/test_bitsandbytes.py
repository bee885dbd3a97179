import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError, StateError
from leyden.core.optional import installed
from leyden.fabric.precision import bitsandbytes
from leyden.fabric.precision.bitsandbytes import MODES, BitsandbytesPrecision

needs_bitsandbytes = pytest.mark.skipif(not installed("bitsandbytes"), reason='it is not installed: pip install "leyden[bitsandbytes]"')


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 64, bias=False))
        self.lm_head = nn.Linear(64, 8)

    def forward(self, x):
        return self.lm_head(self.body(x))


def net():
    torch.manual_seed(0)
    return Net()


def test_a_missing_bitsandbytes_is_told_with_the_command(monkeypatch):
    def missing(name, **options):
        raise MissingDependencyError(f'pip install "leyden[{options["extra"]}]"')

    monkeypatch.setattr(bitsandbytes, "installed", lambda name: False)
    monkeypatch.setattr(bitsandbytes, "require", missing)
    with pytest.raises(MissingDependencyError, match=r"leyden\[bitsandbytes\]"):
        BitsandbytesPrecision("nf4")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mode": "nf8"}, ConfigError, "accepted are 'nf4', 'nf4-dq'"),
        ({"mode": "int8", "dtype": torch.bfloat16}, ConfigError, "int8 only works with dtype=torch.float16"),
        ({"mode": "int8-training", "dtype": torch.float32}, ConfigError, "int8 only works with"),
        ({"mode": "nf4", "dtype": torch.int8}, ConfigError, "accepted are torch.float32"),
        ({"mode": "nf4", "ignore_modules": "lm_head"}, ConfigTypeError, "expected a set of names"),
        ({"mode": "nf4", "ignore_modules": 3}, ConfigTypeError, "expected a set of names"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        BitsandbytesPrecision(**arguments)


@needs_bitsandbytes
def test_dtype_is_float16_for_int8_and_bfloat16_otherwise():
    assert BitsandbytesPrecision("int8").compute_dtype is torch.float16
    assert BitsandbytesPrecision("fp4").compute_dtype is torch.bfloat16


@needs_bitsandbytes
def test_init_module_goes_with_everything_but_ignored_names():
    with BitsandbytesPrecision("nf4").module_init_context():
        assert nn.Linear(1, 1).weight.dtype is torch.bfloat16
    assert torch.get_default_dtype() is torch.float32
    with pytest.raises(StateError, match="not supported when used with `BitsandbytesPrecision"):
        BitsandbytesPrecision("nf4", ignore_modules={"lm_head"}).module_init_context()


@needs_bitsandbytes
@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        (nn.Sequential(nn.ReLU()), ConfigTypeError, "your model Sequential has none"),
        (nn.Linear(2, 2), StateError, r"wrap this one: nn.Sequential\(linear\)"),
        (nn.Sequential(nn.Linear(2, 2, device="meta")), StateError, "'0' is on the meta device"),
    ],
)
def test_what_cannot_be_quantised_is_refused(module, error, words):
    with pytest.raises(error, match=words):
        BitsandbytesPrecision("nf4").convert_module(module)


@needs_bitsandbytes
def test_ignored_names_are_whole_names_or_their_beginnings():
    model = net()
    assert BitsandbytesPrecision("nf4", ignore_modules={"lm_head"}).choose(model) == ["body.0", "body.2"]
    assert BitsandbytesPrecision("nf4", ignore_modules={"body"}).choose(model) == ["lm_head"]
    assert BitsandbytesPrecision("nf4", ignore_modules={"lm", "body.2"}).choose(model) == ["body.0", "lm_head"]


@needs_bitsandbytes
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_computes_near_the_original_and_passes_gradients_on(mode):
    precision, reference = BitsandbytesPrecision(mode, ignore_modules={"lm_head"}), net()
    model = precision.convert_module(net()).to("cpu")  # moving quantises
    quantised = model.body[0]
    assert type(quantised).__module__.startswith("bitsandbytes")
    assert quantised.weight.dtype is {"int8": torch.int8, "int8-training": torch.float16}.get(mode, torch.uint8)
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight.dtype is model.body[1].weight.dtype is precision.compute_dtype

    x = torch.randn(4, 64, requires_grad=True)
    with precision.forward_context():
        output = model(precision.convert_input(x))
    output = precision.convert_output(output)
    assert output.dtype is torch.float32
    torch.testing.assert_close(output, reference(x), atol=0.4 if "4" in mode else 0.05, rtol=0.0)
    precision.backward(output.square().mean(), model)
    assert x.grad is not None
    assert (quantised.weight.grad is not None) is (mode == "int8-training")
    assert model.lm_head.weight.grad is not None


@needs_bitsandbytes
def test_a_model_that_is_quantised_already_is_taken_as_it_is():
    precision = BitsandbytesPrecision("nf4")
    model = precision.convert_module(net())
    layer = model.body[0]
    assert precision.convert_module(model).body[0] is layer
