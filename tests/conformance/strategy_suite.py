"""What every strategy must do, as functions that run inside the ranks. `test_strategies.py` runs them for each strategy.

A strategy is named by a short word; `make` turns the word into a launched Fabric. The network has what real ones have: repeated
blocks, a buffer, a tied weight, and a method of its own.
"""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import Fabric, MeshSpec
from leyden.fabric.precision.convert import default_dtype
from leyden.fabric.strategies import FSDPStrategy, ModelParallelStrategy

WIDTH, GLOBAL_BATCH, STEPS = 16, 24, 20


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.gelu(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.leave = nn.Linear(WIDTH, 8)
        self.leave.weight = nn.Parameter(self.enter.weight.detach().t().contiguous())
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.register_buffer("shift", torch.full((8,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x + 0.1 * self.frozen(x)) + self.shift

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.mse_loss(self(batch[0]), batch[1])

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return self.enter(x).sum()

    def width(self) -> int:
        return WIDTH


class TiedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Embedding(8, WIDTH), nn.Linear(WIDTH, 8, bias=False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.leave.weight = self.enter.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.enter(tokens)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


def tensor_parallel(module: Net, mesh: Any) -> nn.Module:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for block in module.blocks:
        parallelize_module(block, mesh["tensor_parallel"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return module


def tensor_and_data_parallel(module: Net, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for block in module.blocks:
        parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        fully_shard(block, mesh=mesh["dp_shard"])
    fully_shard(module, mesh=mesh["dp_shard"])
    return module


# word → (strategy, ranks it is tried on); the second table holds variants of whose only the losses are looked at.
STRATEGIES: dict[str, tuple[Callable[[], Any], int]] = {
    "single": (lambda: "auto", 1),
    "ddp": (lambda: "ddp", 2),
    "fsdp": (lambda: "fsdp", 2),
    "hsdp": (lambda: FSDPStrategy(sharding_strategy="HYBRID_SHARD", device_mesh=(2, 2)), 4),
    "tp": (lambda: ModelParallelStrategy(tensor_parallel), 2),
    "tp_fsdp": (lambda: ModelParallelStrategy(tensor_and_data_parallel, mesh=MeshSpec(dp_shard=2, tp=2)), 4),
}
VARIANTS: dict[str, tuple[Callable[[], Any], int]] = {
    "ddp_unused": (lambda: "ddp_find_unused_parameters_true", 2),
    "fsdp_zero2": (lambda: FSDPStrategy(sharding_strategy="SHARD_GRAD_OP"), 2),
    "fsdp_freed": (lambda: FSDPStrategy(reshard_after_forward=True), 2),
    "fsdp_root": (lambda: FSDPStrategy(auto_wrap_policy=None), 2),
    "fsdp_offload": (lambda: "fsdp_cpu_offload", 2),
    "fsdp_checkpointed": (lambda: FSDPStrategy(activation_checkpointing_policy={Block}), 2),
}


def make(word: str, *, precision: str = "32-true") -> Fabric:
    strategy, ranks = {**STRATEGIES, **VARIANTS}[word]
    fabric = Fabric(accelerator="cpu", devices=ranks, strategy=strategy(), precision=precision)
    fabric.launch()
    fabric.seed_everything(11, verbose=False)
    return fabric


def data(fabric: Fabric, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(480, 8, generator=generator).to(dtype)
    dataset = TensorDataset(x, x.flip(1).tanh())
    replicas = fabric.strategy.distributed_sampler_kwargs["num_replicas"]
    return fabric.setup_dataloaders(DataLoader(dataset, batch_size=GLOBAL_BATCH // replicas, shuffle=True))


def fresh(fabric: Fabric) -> tuple[Any, Any]:
    torch.manual_seed(3)
    with fabric.init_module():
        net = Net()
    return fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))


def losses_of(word: str, precision: str = "32-true") -> list[float]:
    """Train and return the global loss of each step."""
    dtype = torch.float64 if precision == "64-true" else torch.float32
    fabric = make(word, precision=precision)
    with default_dtype(dtype):  # outputs are given in the default dtype
        model, optimizer = fresh(fabric)
        losses = [step(fabric, model, optimizer, batch) for batch in data(fabric, dtype)]
    fabric.strategy.teardown()
    return losses


def step(fabric: Fabric, model: Any, optimizer: Any, batch: Any) -> float:
    optimizer.zero_grad()
    loss = model.training_step(batch)
    fabric.backward(loss)
    fabric.clip_gradients(model, optimizer, max_norm=1.0)
    optimizer.step()
    return float(fabric.all_reduce(loss.detach(), group="dp"))


def accumulation(word: str) -> tuple[float, float]:
    """Return the largest difference of a parameter after one step: three thirds accumulated against one big batch, and its size."""
    fabric = make(word)
    results = []
    for parts in (1, 3):
        model, optimizer = fresh(fabric)
        batch = next(iter(data(fabric)))
        pieces = list(zip(*[tensor.chunk(parts) for tensor in batch], strict=True))
        for index, piece in enumerate(pieces):
            with fabric.no_backward_sync(model, enabled=index < parts - 1):
                fabric.backward(model.training_step(piece) / parts)
        optimizer.step()
        results.append({name: whole(value).clone() for name, value in model.state_dict().items()})
    differences = [(results[0][name] - results[1][name]).abs().max().item() for name in results[0]]
    return max(differences), max(value.abs().max().item() for value in results[0].values())


def whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def clipped_norm(word: str) -> tuple[float, float, float]:
    """Return the norm that `clip_gradients` reported, torch's over whole gradients before, and torch's after clipping."""
    fabric = make(word)
    model, optimizer = fresh(fabric)
    fabric.backward(model.training_step(next(iter(data(fabric)))) * 50)
    before = [whole(parameter.grad).clone() for parameter in model.parameters() if parameter.grad is not None]
    reported = fabric.clip_gradients(model, optimizer, max_norm=1.0)
    after = [whole(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    assert type(reported) is torch.Tensor
    return float(reported), float(nn.utils.get_total_norm(before)), float(nn.utils.get_total_norm(after))


def clipped_value(word: str) -> float:
    fabric = make(word)
    model, optimizer = fresh(fabric)
    fabric.backward(model.training_step(next(iter(data(fabric)))) * 50)
    assert fabric.clip_gradients(model, optimizer, clip_val=0.01) is None
    return max(float(whole(p.grad).abs().max()) for p in model.parameters() if p.grad is not None)


def names(word: str) -> tuple[list[str], list[str]]:
    fabric = make(word)
    plain = list(Net().state_dict())
    return plain, list(fresh(fabric)[0].state_dict())


def save(word: str, path: str, steps: int) -> list[float]:
    """Train some steps, save, train on; return the losses of the steps after the save."""
    fabric = make(word)
    model, optimizer = fresh(fabric)
    loader = data(fabric)
    batches = iter(loader)
    for _ in range(steps):
        step(fabric, model, optimizer, next(batches))
    fabric.save(Path(path), {"model": model, "optimizer": optimizer, "loader": loader, "step": steps})
    return [step(fabric, model, optimizer, batch) for batch in batches]


def load(word: str, path: str) -> list[float]:
    """Load what `save` wrote into other weights and return the losses of the steps after it."""
    fabric = make(word)
    torch.manual_seed(99)
    net = Net()
    model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    loader = data(fabric)
    state = {"model": model, "optimizer": optimizer, "loader": loader, "step": 0}
    rest = fabric.load(Path(path), state)
    assert rest == {}
    assert state["step"] == STEPS // 2
    return [step(fabric, model, optimizer, batch) for batch in loader]


def methods(word: str) -> tuple[str, float, int]:
    """Return what an undeclared method says, what it returns when it is declared, and what a getter returns."""
    fabric = make(word)
    model, _ = fresh(fabric)
    x = torch.ones(2, 8)
    try:
        model.score(x)
        said = ""
    except RuntimeError as error:
        said = str(error)
    model.mark_forward_method("score")
    return said, float(model.score(x).detach()), model.width()


def contexts(word: str) -> list[float]:
    """Raise inside each context; the losses after that must be those of a run that never did."""
    fabric = make(word)
    model, optimizer = fresh(fabric)
    for context in (fabric.no_backward_sync(model), fabric.autocast(), fabric.init_module(), fabric.init_tensor()):
        with contextlib.suppress(KeyError), context:
            raise KeyError
    return [step(fabric, model, optimizer, batch) for batch in data(fabric)]


def two_models(word: str) -> float:
    """Train two models with one optimizer each, interleaved, and return the last loss of their sum."""
    fabric = make(word)
    (one, first), (two, second) = fresh(fabric), fresh(fabric)
    loss = torch.tensor(math.nan)
    for batch in data(fabric):
        first.zero_grad()
        second.zero_grad()
        loss = one.training_step(batch) + two.training_step(batch)
        fabric.backward(loss)
        first.step()
        second.step()
    return float(fabric.all_reduce(loss.detach()))


def tied(word: str) -> list[float]:
    """Train a network whose first and last layer share a weight."""
    fabric = make(word)
    torch.manual_seed(3)
    net = TiedNet()
    model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    tokens = torch.randint(0, 8, (480, 6), generator=torch.Generator().manual_seed(1))
    replicas = fabric.strategy.distributed_sampler_kwargs["num_replicas"]
    losses = []
    for (batch,) in fabric.setup_dataloaders(DataLoader(TensorDataset(tokens), batch_size=GLOBAL_BATCH // replicas, shuffle=True)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch).flatten(0, 1), batch.roll(1, 1).flatten())
        fabric.backward(loss)
        optimizer.step()
        losses.append(float(fabric.all_reduce(loss.detach())))
    assert model.enter.weight is model.leave.weight
    return losses


def empty(word: str) -> dict[str, torch.Tensor]:
    """Build on the meta device where the strategy can, and return the whole initial weights."""
    fabric = make(word)
    with fabric.init_module(empty_init=True):
        net = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), nn.LayerNorm(16))
    model = fabric.setup_module(net)
    optimizer = fabric.setup_optimizers(torch.optim.SGD(model.parameters(), lr=0.1))
    weights = {name: whole(value).clone() for name, value in model.state_dict().items()}
    fabric.backward(model(torch.ones(2, 8)).sum())
    optimizer.step()
    return weights


def teardown(word: str) -> tuple[bool, int]:
    """Return whether a process group is left after teardown, and how many threads more than before there are."""
    import threading

    from torch import distributed as dist

    before = threading.active_count()
    fabric = make(word)
    model, optimizer = fresh(fabric)
    step(fabric, model, optimizer, next(iter(data(fabric))))
    fabric.strategy.teardown()
    fabric.strategy.teardown()
    return dist.is_initialized(), threading.active_count() - before


def collectives_per_step(word: str) -> tuple[int, int]:
    """Return how many collectives five steps of ours and five of torch's own way cost (gloo counts them, buffers included)."""
    fabric = make(word)
    model, optimizer = fresh(fabric)
    raw, group = RAW[word](Net(), fabric)
    raw_optimizer = torch.optim.AdamW(raw.parameters(), lr=1e-2)
    batches = list(data(fabric))

    def our_step(batch: Any) -> None:
        optimizer.zero_grad()
        fabric.backward(F.mse_loss(model(batch[0]), batch[1]))
        optimizer.step()
        fabric.stop_requested()

    def raw_step(batch: Any) -> None:
        raw_optimizer.zero_grad()
        F.mse_loss(raw(batch[0]), batch[1]).backward()
        raw_optimizer.step()

    def cost(one_step: Callable[[Any], None]) -> int:
        for batch in batches[:3]:  # DDP rebuilds its buckets after the first step
            one_step(batch)
        before = group._get_sequence_number_for_group()
        for batch in batches[3:8]:
            one_step(batch)
        return group._get_sequence_number_for_group() - before

    return cost(our_step), cost(raw_step)


def raw_ddp(net: Net, fabric: Fabric) -> tuple[nn.Module, Any]:
    from torch import distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(net), dist.distributed_c10d._get_default_group()


def raw_fsdp(net: Net, fabric: Fabric) -> tuple[nn.Module, Any]:
    from torch.distributed.fsdp import fully_shard

    for unit in (*net.blocks, net):
        fully_shard(unit, mesh=fabric.strategy.mesh.device_mesh)
    return net, fabric.strategy.mesh.group("dp")


# What our step may cost: torch's own wrapper with its defaults, and the group that it talks over.
RAW: dict[str, Callable[[Net, Fabric], tuple[nn.Module, Any]]] = {
    "ddp": raw_ddp,
    "fsdp": raw_fsdp,
    "fsdp_zero2": raw_fsdp,
    "fsdp_freed": raw_fsdp,
}


def everything(word: str) -> dict[str, Any]:
    """Run every check but those about checkpoints in one set of ranks, so that starting them is paid for once."""
    results: dict[str, Any] = {"losses": losses_of(word), "norm": clipped_norm(word), "value": clipped_value(word), "names": names(word)}
    results |= {"accumulation": accumulation(word), "methods": methods(word), "contexts": contexts(word), "two_models": two_models(word)}
    if not word.startswith("tp"):  # the parallelize functions of this suite know `Net` only
        results |= {"tied": tied(word), "empty": empty(word)}
    if word in RAW:
        results["collectives"] = collectives_per_step(word)
    return results


def losses_of_variants() -> dict[str, list[float]]:
    """Train with each variant, one after the other in the same ranks."""
    return {word: losses_of(word) for word in VARIANTS}


def collectives_of_variants() -> dict[str, tuple[int, int]]:
    """Count the collectives of those variants that have something to be compared with."""
    return {word: collectives_per_step(word) for word in VARIANTS if word in RAW}


def save_all(folder: str, words: list[str]) -> dict[str, list[float]]:
    """Save once with each strategy that runs on this number of ranks."""
    return {word: save(word, f"{folder}/{word}", STEPS // 2) for word in words}


def load_all(folder: str, words: list[str], sources: list[str]) -> dict[str, list[float]]:
    """Load each source with each strategy that runs on this number of ranks, and go on."""
    return {f"{source} in {word}": load(word, f"{folder}/{source}") for source in sources for word in words}
