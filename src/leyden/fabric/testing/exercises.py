"""What the strategy kit does inside the ranks: small trainings whose numbers one process can compute without fabric.

The network has what real ones have: repeated blocks, a buffer, frozen parameters, and a method of its own. `launch` makes
a launched Fabric with the strategy; every function here is run by all ranks.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.fabric import Fabric

WIDTH, GLOBAL_BATCH, STEPS, SEED = 16, 24, 20, 11
FEW = 5  # steps, where what is wrong shows at once
Launch: TypeAlias = Callable[[], Fabric]


class Block(nn.Module):
    """A residual block.

    Shape:
        x: float (batch, WIDTH), and so is the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


class Net(nn.Module):
    """The network that most exercises train.

    Shape:
        x: float (batch, 8), and so is the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.leave = nn.Linear(WIDTH, 8)
        self.leave.weight = nn.Parameter(self.enter.weight.detach().t().contiguous())
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(requires_grad=False)
        self.register_buffer("shift", torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x + 0.1 * self.frozen(x)) + self.shift

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss: a method that fabric marks by its name."""
        return F.mse_loss(self(batch[0]), batch[1])

    def score(self, x: Tensor) -> Tensor:
        """Run a submodule: a method that nobody has marked."""
        return self.enter(x).sum()

    def width(self) -> int:
        """Return a number: a method that computes nothing."""
        return WIDTH


class TiedNet(nn.Module):
    """A network whose first and last layer share a weight.

    Shape:
        tokens: int64 (batch, time) → float (batch, time, 8)
    """

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Embedding(8, WIDTH), nn.Linear(WIDTH, 8, bias=False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.leave.weight = self.enter.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.enter(tokens)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


# -- the same in one process, in plain PyTorch --------------------------------------------------------------------------


def plain_net() -> Net:
    """Return the network with the weights that every exercise begins with."""
    torch.manual_seed(3)
    return Net()


def plain_batches(dataset: TensorDataset, epochs: int = 1) -> Iterator[list[Tensor]]:
    """Yield the global batches of `Fabric.setup_dataloaders` with `shuffle=True` under the seed of the exercises."""
    for epoch in range(epochs):
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(SEED + epoch))
        for indices in order.split(GLOBAL_BATCH):
            yield [tensor[indices] for tensor in dataset.tensors]


@functools.cache
def plain_losses() -> list[float]:
    """Return the losses of `losses`."""
    net = plain_net()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    found: list[float] = []
    for x, y in plain_batches(pairs()):
        optimizer.zero_grad()
        loss = net.training_step((x, y))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@functools.cache
def plain_tied_losses() -> list[float]:
    """Return the losses of `tied_losses`."""
    torch.manual_seed(3)
    net = TiedNet()
    optimizer = AdamW(net.parameters(), lr=1e-2)
    found: list[float] = []
    for (tokens,) in itertools.islice(plain_batches(sentences()), FEW):
        optimizer.zero_grad()
        loss = _next_token_loss(net, tokens)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@functools.cache
def plain_loss_of_two() -> float:
    """Return what `loss_of_two` does."""
    nets = [plain_net(), plain_net()]
    optimizers = [AdamW(net.parameters(), lr=1e-2) for net in nets]
    loss = torch.tensor(math.nan)
    for x, y in itertools.islice(plain_batches(pairs()), FEW):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = nets[0].training_step((x, y)) + nets[1].training_step((x, y))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return float(loss.detach())


def pairs() -> TensorDataset:
    """Return inputs and targets for `Net`."""
    x = torch.randn(STEPS * GLOBAL_BATCH, 8, generator=torch.Generator().manual_seed(5))
    return TensorDataset(x, x.flip(1).tanh())


def sentences() -> TensorDataset:
    """Return tokens for `TiedNet`."""
    return TensorDataset(torch.randint(0, 8, (STEPS * GLOBAL_BATCH, 6), generator=torch.Generator().manual_seed(1)))


def _next_token_loss(model: Any, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten())


# -- through fabric, on every rank --------------------------------------------------------------------------------------


def fresh(fabric: Fabric) -> tuple[Any, Any]:
    """Return the network and its optimizer, set up."""
    torch.manual_seed(3)
    with fabric.init_module():
        net = Net()
    return fabric.setup(net, AdamW(net.parameters(), lr=1e-2))


def loader_of(fabric: Fabric, dataset: TensorDataset) -> Any:
    """Return a loader whose global batches have `GLOBAL_BATCH` samples, whatever the number of ranks."""
    fabric.seed_everything(SEED, verbose=False)
    replicas = fabric.strategy.distributed_sampler_kwargs["num_replicas"]
    return fabric.setup_dataloaders(DataLoader(dataset, batch_size=GLOBAL_BATCH // replicas, shuffle=True))


def step(fabric: Fabric, model: Any, optimizer: Any, batch: Any) -> float:
    """Take one step with clipped gradients and return the global loss."""
    optimizer.zero_grad()
    loss = model.training_step(batch)
    fabric.backward(loss)
    if not fabric.strategy.owns_backward:  # an engine clips by its own configuration
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
    optimizer.step()
    return float(fabric.all_reduce(loss.detach(), group="dp"))


def losses(launch: Launch) -> list[float]:
    """Train and return the global loss of each step."""
    fabric = launch()
    model, optimizer = fresh(fabric)
    return [step(fabric, model, optimizer, batch) for batch in loader_of(fabric, pairs())]


def losses_after_exceptions(launch: Launch) -> list[float]:
    """Raise inside each context, then train a little: the losses must be those of a run that never did."""
    fabric = launch()
    model, optimizer = fresh(fabric)
    for context in (fabric.no_backward_sync(model), fabric.autocast(), fabric.init_module(), fabric.init_tensor()):
        with contextlib.suppress(KeyError), context:
            raise KeyError
    return [step(fabric, model, optimizer, batch) for batch in itertools.islice(loader_of(fabric, pairs()), FEW)]


def accumulation(launch: Launch) -> tuple[float, float]:
    """Return the largest difference of a parameter after one step, three thirds accumulated against one big batch; and its size."""
    results = []
    for parts in (1, 3):
        fabric = launch()
        model, optimizer = fresh(fabric)
        batch = next(iter(loader_of(fabric, pairs())))
        pieces = list(zip(*[tensor.chunk(parts) for tensor in batch], strict=True))
        for index, piece in enumerate(pieces):
            with fabric.no_backward_sync(model, enabled=index < parts - 1):
                fabric.backward(model.training_step(piece) / parts)
        optimizer.step()
        results.append({name: whole(value).clone() for name, value in model.state_dict().items()})
    differences = [(results[0][name] - results[1][name]).abs().max().item() for name in results[0]]
    return max(differences), max(value.abs().max().item() for value in results[0].values())


def clipped_norm(launch: Launch) -> tuple[float, float, float]:
    """Return the norm that `clip_gradients` reported, torch's over whole gradients before, and torch's after clipping."""
    fabric = launch()
    model, optimizer = fresh(fabric)
    fabric.backward(model.training_step(next(iter(loader_of(fabric, pairs())))) * 50)
    before = _whole_gradients(model)
    reported = fabric.clip_gradients(model, optimizer, max_norm=1.0)
    if reported is None:
        raise TypeError("clip_gradients(max_norm=…) returned None instead of the norm")
    return float(reported), float(nn.utils.get_total_norm(before)), float(nn.utils.get_total_norm(_whole_gradients(model)))


def clipped_value(launch: Launch, limit: float) -> float:
    """Clip by value and return the largest element left."""
    fabric = launch()
    model, optimizer = fresh(fabric)
    fabric.backward(model.training_step(next(iter(loader_of(fabric, pairs())))) * 50)
    fabric.clip_gradients(model, optimizer, clip_val=limit)
    return max(float(gradient.abs().max()) for gradient in _whole_gradients(model))


def methods(launch: Launch) -> tuple[str, float, int]:
    """Return what an undeclared method says, what it returns when it is declared, and what a getter returns."""
    model, _ = fresh(fabric := launch())
    x = torch.ones(2, 8, device=fabric.device)
    try:
        model.score(x)
        said = ""
    except RuntimeError as error:
        said = str(error)
    model.mark_forward_method("score")
    return said, float(model.score(x).detach()), model.width()


def loss_of_two(launch: Launch) -> float:
    """Train two models with an optimizer each, interleaved, and return the last loss of their sum."""
    fabric = launch()
    (one, first), (two, second) = fresh(fabric), fresh(fabric)
    loss = torch.tensor(math.nan)
    for batch in itertools.islice(loader_of(fabric, pairs()), FEW):
        first.zero_grad()
        second.zero_grad()
        loss = one.training_step(batch) + two.training_step(batch)
        fabric.backward(loss)
        first.step()
        second.step()
    return float(fabric.all_reduce(loss.detach(), group="dp"))


def tied_losses(launch: Launch) -> list[float]:
    """Train the network whose first and last layer share a weight."""
    fabric = launch()
    torch.manual_seed(3)
    net = TiedNet()
    model, optimizer = fabric.setup(net, AdamW(net.parameters(), lr=1e-2))
    found = []
    for (tokens,) in itertools.islice(loader_of(fabric, sentences()), FEW):
        optimizer.zero_grad()
        loss = _next_token_loss(model, tokens)
        fabric.backward(loss)
        optimizer.step()
        found.append(float(fabric.all_reduce(loss.detach(), group="dp")))
    return found


def resumed(launch: Launch, path: str) -> tuple[list[float], list[float]]:
    """Save in the middle; return the losses after that, and those after loading into other weights."""
    fabric = launch()
    model, optimizer = fresh(fabric)
    batches = iter(loader := loader_of(fabric, pairs()))
    for batch in itertools.islice(batches, STEPS // 2):
        step(fabric, model, optimizer, batch)
    fabric.save(path, {"model": model, "optimizer": optimizer, "loader": loader, "step": STEPS // 2})
    unbroken = [step(fabric, model, optimizer, batch) for batch in batches]
    torch.manual_seed(99)
    net = Net()
    model, optimizer = fabric.setup(net, AdamW(net.parameters(), lr=1e-2))
    state = {"model": model, "optimizer": optimizer, "loader": loader_of(fabric, pairs()), "step": 0}
    fabric.load(path, state)
    return unbroken, [step(fabric, model, optimizer, batch) for batch in state["loader"]]


def whole(tensor: Any) -> Tensor:
    """Return all of a tensor that may lie in parts, on the CPU."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu()


def _whole_gradients(model: Any) -> list[Tensor]:
    return [whole(parameter.grad).clone() for parameter in model.parameters() if parameter.grad is not None]
