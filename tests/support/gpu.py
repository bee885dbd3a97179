"""What the tests of a GPU share: where they run, a small network, a Fabric of one device, and a guard against waiting for it.

`REHEARSE_GPU_TESTS=1` runs those tests on the CPU where there is no GPU, to find mistakes in the tests themselves.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from leyden.fabric import Fabric
from leyden.fabric.plugins import FSDPPrecision, MixedPrecision
from tests.support.lone_rank import lone_rank

REHEARSES = os.environ.get("REHEARSE_GPU_TESTS") == "1"
DEVICE = torch.device("cpu") if REHEARSES else torch.device("cuda", 0)
WIDTH = 64
EPSILON = 1e-4  # AdamW's usual one is 0 in float16

needs_gpu = pytest.mark.skipif(not (REHEARSES or torch.cuda.is_available()), reason="needs a CUDA device")
needs_real_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, also to be rehearsed")


class Block(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH), nn.Dropout(dropout)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x)
        if not torch.compiler.is_compiling():
            self.seen.add(hidden.dtype)
        return x + self.down(self.drop(nn.functional.gelu(hidden)))


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Linear(16, WIDTH)
        self.blocks = nn.ModuleList([Block(dropout), Block(dropout)])
        self.leave = nn.Linear(WIDTH, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


def network(dropout: float = 0.0, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(dropout)


def batches(count: int) -> list[torch.Tensor]:
    """Return inputs on the device; the target is the input."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(32, 16, generator=generator).to(DEVICE) for _ in range(count)]


def gpu_fabric(**arguments: Any) -> Fabric:
    given: dict[str, Any] = {"accelerator": DEVICE.type, "devices": 1, **arguments}
    return Fabric(**given)


@contextmanager
def launched(strategy: str, **arguments: Any) -> Iterator[Fabric]:
    """Yield a Fabric of one device: a plain one for `"single"`, else one rank of a process group over the device's backend."""
    if strategy == "single":
        yield gpu_fabric(**arguments)
        return
    with lone_rank(accelerator=DEVICE.type, strategy=strategy, **arguments) as fabric:
        yield fabric


def scaled(strategy: str = "single", init_scale: float = 2.0**16) -> dict[str, Any]:
    """Return the arguments of a Fabric that computes in float16 with a scaler; the CPU takes them as a plug-in only."""
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=init_scale)
    if strategy.startswith("fsdp"):
        return {"plugins": FSDPPrecision("16-mixed", scaler=scaler, device=DEVICE.type)}
    return {"plugins": MixedPrecision("16-mixed", DEVICE.type, scaler=scaler)}


def ready(fabric: Fabric, net: nn.Module | None = None, lr: float = 1e-2) -> tuple[Any, Any]:
    net = net if net is not None else network()
    model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=lr, eps=EPSILON))
    return model, optimizer


def step(fabric: Fabric, model: Any, optimizer: Any, x: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), x)
    fabric.backward(loss)
    optimizer.step()
    return loss.detach()


def train(fabric: Fabric, model: Any, optimizer: Any, data: list[torch.Tensor]) -> list[float]:
    return torch.stack([step(fabric, model, optimizer, x) for x in data]).tolist()


def raw_train(data: list[torch.Tensor], compute: Callable[[nn.Module, torch.Tensor], torch.Tensor], dtype: torch.dtype) -> list[float]:
    """Train the network as torch's tutorials do, weights in `dtype`, and return the losses."""
    net = network().to(DEVICE, dtype)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, eps=EPSILON)
    losses = []
    for x in data:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(compute(net, x), x)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of all weights on the CPU, whole also where they are sharded."""
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in model.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in whole.items()}


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fail where the block waits for the device."""
    if REHEARSES:
        yield
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not every kind of waiting is noticed
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def busy(milliseconds: int = 50) -> None:
    """Keep the current stream busy, so that what does not wait for it is seen."""
    if not REHEARSES:
        torch.cuda._sleep(milliseconds * 1_000_000)  # cycles, at one to two of them a nanosecond


def where(strategy: str = "ddp_spawn") -> Any:
    """Launch a function in a process of its own and return what it says; called by a test."""
    return gpu_fabric(strategy=strategy).launch(_place)


def _place(fabric: Fabric) -> dict[str, Any]:
    model, optimizer = ready(fabric)
    loss = step(fabric, model, optimizer, batches(1)[0])
    return {"device": str(fabric.device), "loss": loss, "pid": os.getpid()}
