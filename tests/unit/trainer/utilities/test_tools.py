"""The few tools that live in the documented folder itself: norms, memory, pickles, overrides, choices."""

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError
from leyden.trainer.core.callback import Callback
from leyden.trainer.demos.boring_classes import BoringModel
from leyden.trainer.utilities.enums import GradClipAlgorithmType
from leyden.trainer.utilities.grads import grad_norm
from leyden.trainer.utilities.memory import get_model_size_mb, is_oom_error, recursive_detach
from leyden.trainer.utilities.model_helpers import is_overridden
from leyden.trainer.utilities.parsing import is_picklable


def layer_with_gradient() -> nn.Linear:
    layer = nn.Linear(2, 1)
    layer(torch.tensor([3.0, 4.0])).backward()
    return layer


@pytest.mark.parametrize(("p", "key", "weight", "total"), [(2, "2.0", 5.0, 26**0.5), (1, "1.0", 7.0, 8.0), ("inf", "inf", 4.0, 4.0)])
def test_norms_are_by_parameter_and_in_total(p: float | str, key: str, weight: float, total: float) -> None:
    norms = grad_norm(layer_with_gradient(), p)
    assert list(norms) == [f"grad_{key}_norm/weight", f"grad_{key}_norm/bias", f"grad_{key}_norm_total"]
    assert float(norms[f"grad_{key}_norm/weight"]) == pytest.approx(weight)
    assert float(norms[f"grad_{key}_norm_total"]) == pytest.approx(total)


def test_without_gradients_there_are_no_norms() -> None:
    assert grad_norm(nn.Linear(2, 1), 2) == {}


@pytest.mark.parametrize("wrong", [0, -1, "two", None])
def test_a_norm_of_no_positive_order_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="`norm_type` must be a positive number or 'inf'"):
        grad_norm(layer_with_gradient(), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "is_oom"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("HIP out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
    ids=["cuda", "hip", "cudnn", "cpu", "python", "other", "other type"],
)
def test_lack_of_memory_is_recognised(error: Exception, is_oom: bool) -> None:
    assert is_oom_error(error) is is_oom


def test_detaching_reaches_into_collections() -> None:
    tensor = torch.ones(2, requires_grad=True) * 2
    assert not recursive_detach({"a": [tensor]}, to_cpu=True)["a"][0].requires_grad


def test_shared_parameters_count_once_in_the_size() -> None:
    net = nn.Sequential(nn.Linear(500, 500, bias=False), nn.Linear(500, 500, bias=False))
    net[1].weight = net[0].weight
    assert get_model_size_mb(net) == 1.0


def test_overrides_are_found() -> None:
    assert is_overridden("training_step", BoringModel())
    assert not is_overridden("on_train_start", BoringModel())
    assert not is_overridden("on_fit_start", Callback())
    assert is_overridden("forward", nn.ReLU(), parent=nn.Module)
    with pytest.raises(ValueError, match="Expected a parent"):
        is_overridden("forward", object())
    assert not is_overridden("fly", Callback())
    with pytest.raises(ValueError, match="The parent should define the method"):
        is_overridden("forward", nn.ReLU(), parent=Callback)


def test_what_pickles_is_known() -> None:
    assert is_picklable(nn.Linear(1, 1))
    assert not is_picklable(lambda: 0)


def test_clip_algorithms_are_strings() -> None:
    assert GradClipAlgorithmType("norm") == "norm"
    assert not GradClipAlgorithmType.supported_type("both")
