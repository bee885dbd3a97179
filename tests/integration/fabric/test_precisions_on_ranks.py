"""Precisions over two real ranks: an overflow in one rank's shard skips the step on all; clipping and the scaler agree."""

import copy
import functools
import math
from typing import Any

import pytest
import torch
from torch import nn

from leyden.fabric import Fabric
from leyden.fabric.plugins import FSDPPrecision, MixedPrecision
from tests.support.ranks import run_ranks


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 4))
        self.leave = nn.Linear(4, 2)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(x)
        self.seen.add(x.dtype)
        return self.leave(x)


def fabric_of(strategy: str, **arguments: Any) -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy, **arguments)
    fabric.launch()
    fabric.seed_everything(5, verbose=False)
    return fabric


def ready(fabric: Fabric) -> tuple[Any, Any, Net]:
    """Return model and optimizer, and a copy of the plain module."""
    torch.manual_seed(3)
    net = Net()
    plain = copy.deepcopy(net)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.05))
    return model, optimizer, plain


def whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: whole(value).detach().float().clone() for name, value in model.state_dict().items()}


def step(fabric: Fabric, model: Any, optimizer: Any) -> float:
    x = torch.linspace(-1, 1, 16).reshape(4, 4)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), torch.ones(4, 2))
    fabric.backward(loss)
    optimizer.step()
    return loss.item()


def with_scaler(strategy: str, scale: float = 16.0) -> Fabric:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    plugin = FSDPPrecision("16-mixed", scaler=scaler) if strategy == "fsdp" else MixedPrecision("16-mixed", "cpu", scaler=scaler)
    return fabric_of(strategy, plugins=plugin)


def dtypes(strategy: str, precision: str) -> tuple[set[torch.dtype], set[torch.dtype], torch.dtype, list[float]]:
    """Return dtypes of weights, of activations, of the output, and ten losses."""
    fabric = fabric_of(strategy, precision=precision)
    model, optimizer, _ = ready(fabric)
    losses = [step(fabric, model, optimizer) for _ in range(10)]
    return {p.dtype for p in model.parameters()}, set(model.module.seen), model(torch.ones(1, 4)).dtype, losses


def overflow(strategy: str) -> dict[str, Any]:
    """Make one gradient element infinite on rank 1 only, after its own backward; then train on."""
    fabric = with_scaler(strategy)
    model, optimizer, _ = ready(fabric)
    step(fabric, model, optimizer)
    before = weights(model)
    optimizer.zero_grad()
    fabric.backward(model(torch.ones(1, 4)).sum())
    if fabric.global_rank == 1 or strategy == "ddp":  # under ddp all ranks have the same gradients
        gradient: Any = next(model.parameters()).grad
        local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
        local.view(-1)[0] = math.inf
    optimizer.step()
    after, skipped, state = weights(model), optimizer.last_step_skipped, fabric.strategy.precision.state_dict()
    step(fabric, model, optimizer)
    return {
        "kept": all(torch.equal(before[name], after[name]) for name in before),
        "skipped": [skipped, optimizer.last_step_skipped, optimizer.skipped_steps],
        "scale": state["scale"],
        "went on": not torch.equal(weights(model)["leave.weight"], after["leave.weight"]),
        "weights": weights(model),
    }


def clipped(strategy: str) -> tuple[float, float, float]:
    """Return the norm that clipping reported under a scaler, the plain module's in float32, and the step's size over the rate."""
    fabric = with_scaler(strategy)
    model, optimizer, plain = ready(fabric)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    plain(x).square().sum().backward()
    expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    before = weights(model)
    fabric.backward(model(x).square().sum())
    reported = fabric.clip_gradients(model, optimizer, max_norm=0.01)
    optimizer.step()
    moved = nn.utils.get_total_norm([weights(model)[name] - value for name, value in before.items()])
    assert type(reported) is torch.Tensor
    return reported.item(), expected.item(), moved.item() / 0.05


def refused(strategy: str) -> str:
    model, _, _ = ready(with_scaler(strategy))
    try:
        model(torch.ones(1, 4)).sum().backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def everything() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for strategy in ("ddp", "fsdp"):
        results[strategy] = {
            **{precision: dtypes(strategy, precision) for precision in ("bf16-mixed", "bf16-true", "32-true")},
            "overflow": overflow(strategy),
            "clipped": clipped(strategy),
            "refused": refused(strategy),
        }
    return results


@functools.cache
def results() -> list[dict[str, Any]]:
    return run_ranks(everything, 2, timeout=100)


both = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


@both
@pytest.mark.parametrize(
    ("precision", "weight", "activation"),
    [
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("32-true", torch.float32, torch.float32),
    ],
)
def test_weights_and_activations_have_the_dtypes_of_the_precision(strategy, precision, weight, activation):
    for rank in results():
        weights_of, seen, output, losses = rank[strategy][precision]
        assert (weights_of, seen, output) == ({weight}, {activation}, torch.float32)
        assert losses[-1] < 0.8 * losses[0]
        exact = rank["ddp"]["32-true"][3]
        assert losses == pytest.approx(exact, rel=1e-5 if precision == "32-true" else 0.05)


@both
def test_an_overflow_in_one_shard_skips_the_step_on_all_ranks(strategy):
    first, second = (rank[strategy]["overflow"] for rank in results())
    for each in (first, second):
        assert each["kept"]
        assert each["skipped"] == [True, False, 1]
        assert each["scale"] == 8.0
        assert each["went on"]
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())


@both
def test_clipping_sees_unscaled_gradients(strategy):
    for reported, expected, moved in (rank[strategy]["clipped"] for rank in results()):
        assert reported == pytest.approx(expected, rel=0.02)
        assert moved == pytest.approx(0.01, rel=0.02)


@both
def test_backward_past_the_scaler_is_refused(strategy):
    assert all("call fabric.backward(loss) instead" in rank[strategy]["refused"] for rank in results())
