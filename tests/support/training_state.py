"""A small training that is worth saving: a model with buffers, Adam's moments, a schedule, values, and steps that change all."""

from typing import Any

import torch
from torch import nn


def training_state(seed: int = 0) -> dict[str, Any]:
    """Return a new state: model, optimizer, scheduler, and plain values."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    torch.set_rng_state(generator_state)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "step": 0, "hparams": {"sizes": [4, 8, 2], "lr": 1e-2}}


def train(state: dict[str, Any], steps: int = 3) -> None:
    """Take some steps on random data."""
    for _ in range(steps):
        state["optimizer"].zero_grad()
        state["model"](torch.randn(16, 4)).square().sum().backward()
        state["optimizer"].step()
        state["scheduler"].step()
        state["step"] += 1


def assert_same_state(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Compare two states bit for bit."""
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert_same_tree(_tree(value), _tree(right[key]), key)


def _tree(value: Any) -> Any:
    return value.state_dict() if hasattr(value, "state_dict") else value


def assert_same_tree(left: Any, right: Any, path: str = "") -> None:
    """Compare two trees of tensors and values bit for bit, types included."""
    assert type(left) is type(right) or (isinstance(left, dict) and isinstance(right, dict)), f"{path}: {left!r} and {right!r}"
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype, path
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert list(left) == list(right) or set(left) == set(right), path
        for key in left:
            assert_same_tree(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_tree(one, other, f"{path}[{index}]")
    else:
        assert left == right or (left != left and right != right), path
