"""The kit for precisions: what is converted, what is put back, and that training works."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from leyden.fabric.precision.precision import Precision
from leyden.fabric.testing.expectations import expect, expect_equal

_STEPS = 20


class PrecisionConformance(ABC):
    """What every precision must do, whatever it computes in.

    `device` is where the tests compute; a small network of `Linear(16, 32)`, `Tanh`, `Linear(32, 16)` is trained there.

    Example:
        ```python
        class TestMine(PrecisionConformance):
            def make(self):
                return MyPrecision()
        ```
    """

    device: ClassVar[str] = "cpu"

    @abstractmethod
    def make(self) -> Precision:
        """Return a new precision."""

    def test_only_floating_tensors_are_converted(self) -> None:
        batch = {
            "x": torch.ones(2, device=self.device),
            "ids": torch.ones(2, dtype=torch.long, device=self.device),
            "mask": torch.ones(2, dtype=torch.bool, device=self.device),
            "name": "a",
        }
        converted = self.make().convert_input(batch)
        expect_equal(converted["ids"].dtype, torch.long, "the dtype of integers after convert_input")
        expect_equal(converted["mask"].dtype, torch.bool, "the dtype of booleans after convert_input")
        expect_equal(converted["name"], "a", "a string after convert_input")

    def test_outputs_are_in_the_default_dtype(self) -> None:
        precision = self.make()
        outputs = {
            "y": torch.ones(2, dtype=torch.float64, device=self.device),
            "ids": torch.ones(2, dtype=torch.long, device=self.device),
        }
        converted = precision.convert_output(outputs)
        expect_equal(converted["ids"].dtype, torch.long, "the dtype of integers after convert_output")
        if not precision.plain:
            expect_equal(converted["y"].dtype, torch.get_default_dtype(), "the dtype of floats after convert_output")

    def test_the_default_dtype_comes_back_after_exceptions(self) -> None:
        precision, before = self.make(), torch.get_default_dtype()
        for context in (precision.forward_context, precision.tensor_init_context, precision.module_init_context):
            try:
                with context():
                    raise KeyError
            except KeyError:
                pass
            expect_equal(torch.get_default_dtype(), before, f"the default dtype after an exception in {context.__name__}()")
            expect(not torch.is_autocast_enabled(self.device), f"autocast stays on after an exception in {context.__name__}()")

    def test_a_network_trains(self) -> None:
        precision = self.make()
        torch.manual_seed(0)
        model = precision.convert_module(nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16)).to(self.device))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        x = torch.randn(32, 16).to(self.device)
        losses = [_step(precision, model, optimizer, x) for _ in range(_STEPS)]
        expect(losses[-1] < 0.9 * losses[0], f"the loss should fall by a tenth in {_STEPS} steps, but went {losses[0]} → {losses[-1]}")

    def test_state_goes_to_another_of_its_kind(self) -> None:
        precision, other = self.make(), self.make()
        other.load_state_dict(precision.state_dict())
        expect_equal(other.state_dict(), precision.state_dict(), "the state after load_state_dict")


def _step(precision: Precision, model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    """Take one step as fabric does, hook by hook."""
    optimizer.zero_grad()
    inputs: Any = precision.convert_input(x)
    with precision.forward_context():
        output = model(inputs)
    loss = (precision.convert_output(output) - x.flip(1)).pow(2).mean()
    precision.pre_backward(loss, model)
    precision.backward(loss, model)
    precision.post_backward(loss, model)
    precision.unscale_gradients(optimizer)
    nn.utils.clip_grad_norm_(list(precision.main_params(optimizer)), 10.0)
    precision.optimizer_step(optimizer)
    return float(loss.detach())
