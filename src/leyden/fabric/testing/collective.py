"""The kit for a strategy's collectives: shapes, dtypes, nesting, gradients, objects, decisions; on real ranks."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor

from leyden.fabric.fabric import Fabric
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.testing.expectations import expect_equal
from leyden.fabric.testing.ranks import run_in_ranks

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool)
_OPERATIONS: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min, "mean": fmean}


class CollectiveConformance(ABC):
    """What the collectives of every parallel strategy promise, on `ranks` ranks.

    They run once per class, in new processes; the tests look at what each rank got.

    Example:
        ```python
        class TestMine(CollectiveConformance):
            def make(self):
                return MyStrategy()
        ```
    """

    ranks: ClassVar[int] = 2
    accelerator: ClassVar[str] = "cpu"

    @abstractmethod
    def make(self) -> Strategy | str:
        """Return a new strategy, or its registered name; called in each rank."""

    @classmethod
    def run_ranks(cls, method: str) -> list[Any]:
        """Run a method of a new instance in every rank and return the results; override it to start ranks in another way."""
        return run_in_ranks(cls, method, cls.ranks)

    def exercise(self) -> dict[str, Any]:
        """Call every collective in one set of ranks."""
        fabric = Fabric(accelerator=self.accelerator, devices=self.ranks, strategy=self.make())
        fabric.launch()
        strategy, rank = fabric.strategy, fabric.global_rank
        tensor = torch.arange(6, device=fabric.device).reshape(2, 3) + 10 * rank
        reduced = {name: strategy.all_reduce(torch.tensor(rank + 1.0, device=fabric.device), reduce_op=name) for name in _OPERATIONS}
        found: dict[str, Any] = {
            "dtypes": [_listed(strategy.all_gather((tensor % 2).to(dtype))) for dtype in _DTYPES],
            "scalar": _listed(strategy.all_gather(torch.tensor(rank, device=fabric.device))),
            "nested": _listed(strategy.all_gather({"a": [tensor, rank], "name": "x"})),
            "reduced": {name: float(value) for name, value in reduced.items()},
            "objects": [strategy.broadcast({"rank": rank, "who": "é"}, src=source) for source in range(self.ranks)],
            "tensor": _listed(strategy.broadcast(tensor, src=self.ranks - 1)),
            "any": strategy.reduce_boolean_decision(rank == 0, all=False),
            "all": strategy.reduce_boolean_decision(rank == 0, all=True),
            "gradient": _gradient(strategy, fabric),
        }
        fabric.barrier("the end of the exercises")
        strategy.teardown()
        return found

    def _results(self) -> list[dict[str, Any]]:
        return _exercised(type(self))

    def _each(self) -> list[list[list[int]]]:
        return [(torch.arange(6).reshape(2, 3) + 10 * rank).tolist() for rank in range(self.ranks)]

    def _gathered(self, each: list[Any]) -> Any:
        return each if self.ranks > 1 else each[0]  # one rank: unchanged

    def test_gathering_adds_an_axis_of_ranks_in_every_dtype(self) -> None:
        expected = self._gathered([[[value % 2 for value in row] for row in each] for each in self._each()])
        for rank in self._results():
            for dtype, gathered in zip(_DTYPES, rank["dtypes"], strict=True):
                expect_equal(gathered, expected, f"all_gather of {dtype}")
            expect_equal(rank["scalar"], self._gathered(list(range(self.ranks))), "all_gather of a tensor without axes")

    def test_nesting_is_kept_and_numbers_become_tensors(self) -> None:
        for rank in self._results():
            expected = {"a": [self._gathered(self._each()), self._gathered(list(range(self.ranks)))], "name": "x"}
            expect_equal(rank["nested"], expected, "all_gather of a dictionary")

    def test_reductions_are_over_all_ranks(self) -> None:
        values = [rank + 1.0 for rank in range(self.ranks)]
        for rank in self._results():
            expect_equal(rank["reduced"], {name: operation(values) for name, operation in _OPERATIONS.items()}, "all_reduce")

    def test_every_rank_gets_what_the_source_has(self) -> None:
        for rank in self._results():
            expect_equal(rank["objects"], [{"rank": source, "who": "é"} for source in range(self.ranks)], "broadcast of an object")
            expect_equal(rank["tensor"], self._each()[-1], "broadcast of a tensor")

    def test_decisions_are_everybodys(self) -> None:
        for rank in self._results():
            expect_equal((rank["any"], rank["all"]), (True, self.ranks == 1), "reduce_boolean_decision with all=False, all=True")

    def test_gradients_flow_back_to_the_rank_a_slice_came_from(self) -> None:
        for number, rank in enumerate(self._results()):
            expect_equal(rank["gradient"], [float((number + 1) * self.ranks)] * 2, f"the gradient on rank {number}")


def _gradient(strategy: Strategy, fabric: Fabric) -> list[float]:
    """Weigh the slice of rank r by r + 1 and return the gradient of this rank's own slice, summed over what all ranks computed."""
    own = torch.ones(2, device=fabric.device, requires_grad=True)
    gathered = strategy.all_gather(own, sync_grads=True)
    if gathered.dim() == own.dim():  # one rank: unchanged
        gathered = gathered.unsqueeze(0)
    weights = torch.arange(1, gathered.shape[0] + 1, device=fabric.device).unsqueeze(1)
    (gathered * weights).sum().backward()
    return [] if own.grad is None else own.grad.tolist()


def _listed(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.cpu().tolist()
    if isinstance(data, dict):
        return {key: _listed(value) for key, value in data.items()}
    return [_listed(value) for value in data] if isinstance(data, list) else data


@functools.cache
def _exercised(kit: type[CollectiveConformance]) -> list[dict[str, Any]]:
    return kit.run_ranks("exercise")
