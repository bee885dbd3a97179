"""What every precision must do, whatever it computes in."""

from typing import Any

import torch
from torch import nn

from leyden.fabric.precision.precision import Precision


def converts_only_floating_tensors(precision: Precision) -> None:
    batch = precision.convert_input(
        {"x": torch.ones(2), "ids": torch.ones(2, dtype=torch.long), "mask": torch.ones(2, dtype=torch.bool), "name": "a"}
    )
    assert batch["ids"].dtype is torch.long
    assert batch["mask"].dtype is torch.bool
    assert batch["name"] == "a"


def gives_outputs_in_the_default_dtype(precision: Precision) -> None:
    output = precision.convert_output({"y": torch.ones(2, dtype=torch.float64), "ids": torch.ones(2, dtype=torch.long)})
    assert output["ids"].dtype is torch.long
    if not precision.plain:
        assert output["y"].dtype is torch.get_default_dtype()


def restores_the_default_dtype_after_exceptions(precision: Precision) -> None:
    before = torch.get_default_dtype()
    for context in (precision.forward_context, precision.tensor_init_context, precision.module_init_context):
        try:
            with context():
                raise KeyError
        except KeyError:
            pass
        assert torch.get_default_dtype() is before
        assert not torch.is_autocast_enabled("cpu")


def trains(precision: Precision) -> None:
    torch.manual_seed(0)
    model = precision.convert_module(nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x = torch.randn(32, 16)
    losses = [step(precision, model, optimizer, x) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


def step(precision: Precision, model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
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


def keeps_its_state(precision: Precision, other: Precision) -> None:
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


CHECKS = (converts_only_floating_tensors, gives_outputs_in_the_default_dtype, restores_the_default_dtype_after_exceptions, trains)
