"""The small training run that several claims are measured on: an MLP 32-64-2, batches of 32, SGD, one process's loop.

The network is small on purpose: what is around a step weighs most where the step itself is short. This file runs in the
peers' environments too, so torch is imported inside.
"""

import cProfile
import gc
import pstats
import time
from collections.abc import Callable, Iterable
from typing import Any

STEPS = 200
PASSES = 20
WARM_UP = 300
BATCH = 32
Backward = Callable[[Any], object]


def network() -> tuple[Any, Any]:
    """Return the network and its optimizer, the same each time."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def batches(count: int) -> list[tuple[Any, Any]]:
    """Return `count` batches that are there already; after a hundred they repeat."""
    import torch

    generator = torch.Generator().manual_seed(1)
    some = [(torch.randn(BATCH, 32, generator=generator), torch.randint(2, (BATCH,), generator=generator)) for _ in range(min(count, 100))]
    return (some * -(-count // len(some)))[:count]


def train(model: Any, optimizer: Any, data: Iterable[tuple[Any, Any]], backward: Backward) -> None:
    """Train over `data` once; the same lines for all contestants."""
    from torch.nn.functional import cross_entropy

    for inputs, targets in data:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        backward(loss)
        optimizer.step()


def train_and_log(model: Any, optimizer: Any, data: Iterable[tuple[Any, Any]], backward: Backward, log: Callable[[Any], object]) -> None:
    """Train over `data` once and hand each step's loss to `log`."""
    from torch.nn.functional import cross_entropy

    for inputs, targets in data:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        backward(loss)
        optimizer.step()
        log(loss)


def seconds_of(one_pass: Callable[[], object], passes: int = PASSES) -> float:
    """Return the CPU time of the fastest of many short passes, all threads of the process included.

    What makes the others slower is the rest of the machine. On a busy one the ratio of a step to the raw loop's was 1.01 to 1.06
    this way in five rounds, and 1.03 to 1.27 by the time of one long pass.

    Args:
        one_pass: Does the measured work once; it has been warmed up.
        passes: How often.
    """
    times = []
    for _ in range(passes):
        start = time.process_time()
        one_pass()
        times.append(time.process_time() - start)
    return min(times)


def calls_of(pass_over: Callable[[int], object], few: int = 10, many: int = 30) -> float:
    """Return how many Python and C calls a step makes: the difference of two runs, so that what surrounds a loop does not count.

    Args:
        pass_over: Does so many steps.
        few: The shorter run's steps.
        many: The longer run's steps.
    """

    def calls(count: int) -> int:
        profile = cProfile.Profile()
        profile.enable()
        pass_over(count)
        profile.disable()
        return pstats.Stats(profile).total_calls

    gc.disable()  # its callbacks are calls too
    try:
        pass_over(few)
        few_calls = calls(few)
        return (calls(many) - few_calls) / (many - few)
    finally:
        gc.enable()


def step_cost(model: Any, optimizer: Any, backward: Backward, steps: int) -> dict[str, float]:
    """Return what steps over prebuilt batches cost: `seconds`, `calls` per step, and `extra_calls` above the raw loop's.

    Args:
        model: As the contestant made it.
        optimizer: The same.
        backward: Takes the loss.
        steps: How many steps are timed.
    """
    data = batches(steps)
    train(model, optimizer, data[:WARM_UP], backward)
    calls = calls_of(lambda count: train(model, optimizer, data[:1] * count, backward))
    return {
        "seconds": seconds_of(lambda: train(model, optimizer, data, backward)),
        "calls": calls,
        "extra_calls": calls - raw_calls(),
    }


def raw_calls() -> float:
    """Return how many calls a step of the raw loop makes here, with this environment's torch."""
    import torch

    model, optimizer = network()
    data = batches(1)
    return calls_of(lambda count: train(model, optimizer, data * count, torch.Tensor.backward))
