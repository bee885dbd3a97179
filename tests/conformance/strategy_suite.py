"""What fabric's strategies do beyond the kit that is shipped, as functions that run inside the ranks; `test_strategies` runs them.

A strategy is named by a short word; `make` turns the word into a launched Fabric. The network is the kit's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric import Fabric, MeshSpec
from leyden.fabric.precision.convert import default_dtype
from leyden.fabric.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from leyden.fabric.testing.exercises import GLOBAL_BATCH, STEPS, Block, Net, fresh, step, whole


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
# Engines that write and read their own files: weights are what they trade with the others.
# (Of stage 3 they could not train this network: one of its weights is made of another, which is cut up by then.)
ENGINES: dict[str, tuple[Callable[[], Any], int]] = {
    "deepspeed": (lambda: DeepSpeedStrategy(config={"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0}), 2),
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
    strategy, _ = {**STRATEGIES, **ENGINES, **VARIANTS}[word]
    fabric = Fabric(accelerator="cpu", devices=dist.get_world_size(), strategy=strategy(), precision=precision)
    fabric.launch()
    fabric.seed_everything(11, verbose=False)
    return fabric


def data(fabric: Fabric, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(480, 8, generator=generator).to(dtype)
    dataset = TensorDataset(x, x.flip(1).tanh())
    replicas = fabric.strategy.distributed_sampler_kwargs["num_replicas"]
    return fabric.setup_dataloaders(DataLoader(dataset, batch_size=GLOBAL_BATCH // replicas, shuffle=True))


def losses_of(word: str, precision: str = "32-true") -> list[float]:
    """Train and return the global loss of each step."""
    dtype = torch.float64 if precision == "64-true" else torch.float32
    fabric = make(word, precision=precision)
    with default_dtype(dtype):  # outputs are given in the default dtype
        model, optimizer = fresh(fabric)
        losses = [step(fabric, model, optimizer, batch) for batch in data(fabric, dtype)]
    fabric.strategy.teardown()
    return losses


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


def load_weights(word: str, path: str) -> float:
    """Load the weights alone of what `save` wrote and return the loss of the step after it."""
    fabric = make(word)
    torch.manual_seed(99)
    net = Net()
    model, _ = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    state = {"model": model, "step": 0}
    fabric.load(Path(path), state)
    assert state["step"] == STEPS // 2
    loss = model.training_step(list(data(fabric))[STEPS // 2])
    return float(fabric.all_reduce(loss.detach(), group="dp"))


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


def beyond_the_kit(word: str) -> dict[str, Any]:
    """Run what can be compared in one set of ranks, so that starting them is paid for once."""
    return {"empty": empty(word)} | ({"collectives": collectives_per_step(word)} if word in RAW else {})


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


def load_with_engines(folder: str, words: list[str], sources: list[str]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Load with each engine what it saved itself, and the weights of each source."""
    return {f"{word} in {word}": load(word, f"{folder}/{word}") for word in words}, load_all_weights(folder, words, sources)


def load_all_weights(folder: str, words: list[str], sources: list[str]) -> dict[str, float]:
    """Load the weights of each source with each strategy that runs on this number of ranks."""
    return {f"{source} in {word}": load_weights(word, f"{folder}/{source}") for source in sources for word in words}
