"""The kit for strategies: real ranks train what one process trains in plain PyTorch, and get the same numbers."""

import functools
import tempfile
import threading
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import distributed as dist

from leyden.fabric.fabric import Fabric
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.testing import exercises
from leyden.fabric.testing.expectations import expect, expect_close, expect_equal, skip
from leyden.fabric.testing.ranks import run_in_ranks

_CLIP = 0.01


class StrategyConformance(ABC):
    """What every strategy promises: the numbers of one process, torch's norms, the plain module's names, exact resume.

    All exercises run once per class, in `ranks` new processes; the tests look at what they returned. `tolerance` is the
    relative difference allowed in float32: sums over parts of a batch round differently. `trains_any_module = False` is for
    a strategy that knows the layers of `leyden.fabric.testing.exercises.Net` only (tensor parallelism).

    Example:
        ```python
        class TestMine(StrategyConformance):
            ranks = 2

            def make(self):
                return MyStrategy()
        ```
    """

    ranks: ClassVar[int] = 2
    accelerator: ClassVar[str] = "cpu"
    tolerance: ClassVar[float] = 1e-5
    trains_any_module: ClassVar[bool] = True

    @abstractmethod
    def make(self) -> Strategy | str:
        """Return a new strategy, or its registered name; called in each rank."""

    @classmethod
    def run_ranks(cls, method: str) -> list[Any]:
        """Run a method of a new instance in every rank and return the results; override it to start ranks in another way."""
        return run_in_ranks(cls, method, cls.ranks)

    def launch(self) -> Fabric:
        """Return a launched Fabric with the strategy."""
        fabric = Fabric(accelerator=self.accelerator, devices=self.ranks, strategy=self.make())
        fabric.launch()
        return fabric

    def exercise(self) -> dict[str, Any]:
        """Run everything in one set of ranks, so that starting them is paid for once."""
        threads = threading.active_count()
        launched: list[Fabric] = []

        def launch() -> Fabric:
            launched.append(self.launch())
            return launched[-1]

        found: dict[str, Any] = {
            "losses": exercises.losses(launch),
            "after exceptions": exercises.losses_after_exceptions(launch),
            "accumulation": exercises.accumulation(launch),
            "norm": exercises.clipped_norm(launch),
            "value": exercises.clipped_value(launch, _CLIP),
            "names": list(exercises.fresh(launch())[0].state_dict()),
            "methods": exercises.methods(launch),
            "two": exercises.loss_of_two(launch),
        }
        if self.trains_any_module:
            found["tied"] = exercises.tied_losses(launch)
        with tempfile.TemporaryDirectory(prefix="leyden-kit-") as folder:
            found["resumed"] = exercises.resumed(launch, launched[0].broadcast(f"{folder}/saved"))
            launched[0].barrier("the end of the exercises")
        for fabric in 2 * launched[::-1]:
            fabric.strategy.teardown()
        return {**found, "left": (dist.is_initialized(), threading.active_count() - threads)}

    def _results(self) -> list[dict[str, Any]]:
        return _exercised(type(self))

    def test_losses_are_those_of_one_process(self) -> None:
        for rank in self._results():
            expect_close(rank["losses"], exercises.plain_losses(), "the global loss of each step", relative=self.tolerance)

    def test_after_an_exception_in_any_context_the_next_steps_are_right(self) -> None:
        for rank in self._results():
            expect_close(
                rank["after exceptions"], exercises.plain_losses()[: exercises.FEW], "the losses after exceptions", relative=self.tolerance
            )

    def test_accumulating_is_one_big_batch(self) -> None:
        for difference, size in (rank["accumulation"] for rank in self._results()):
            expect(difference <= self.tolerance * max(1.0, size), f"three thirds and one batch differ by {difference} in a parameter")

    def test_the_clipped_norm_is_torchs_over_everything(self) -> None:
        for reported, before, after in (rank["norm"] for rank in self._results()):
            expect(before > 1, f"the exercise's gradients should need clipping, but their norm is {before}")
            expect_close([reported], [before], "the norm that clip_gradients returns", relative=self.tolerance)
            expect_close([after], [1.0], "the norm after clipping to 1", relative=1e-4)

    def test_no_element_is_above_a_clipped_value(self) -> None:
        for largest in (rank["value"] for rank in self._results()):
            expect(largest <= _CLIP + 1e-9, f"clip_val={_CLIP} left an element of {largest}")

    def test_names_are_those_of_the_plain_module(self) -> None:
        for rank in self._results():
            expect_equal(rank["names"], list(exercises.plain_net().state_dict()), "the names in state_dict()")

    def test_undeclared_methods_are_refused_and_marked_ones_run(self) -> None:
        expected = float(exercises.plain_net().score(torch.ones(2, 8)).detach())
        for said, value, width in (rank["methods"] for rank in self._results()):
            if self.ranks > 1:
                expect('model.mark_forward_method("score")' in said, f"an undeclared method should name the way out, but said {said!r}")
            expect_close([value], [expected], "what a marked method returns", relative=self.tolerance)
            expect_equal(width, exercises.WIDTH, "what a getter returns")

    def test_two_models_train_side_by_side(self) -> None:
        for rank in self._results():
            expect_close([rank["two"]], [exercises.plain_loss_of_two()], "the last loss of two models", relative=10 * self.tolerance)

    def test_tied_weights_stay_tied(self) -> None:
        if not self.trains_any_module:
            skip("this strategy knows one module only")
        for rank in self._results():
            expect_close(rank["tied"], exercises.plain_tied_losses(), "the losses of tied weights", relative=self.tolerance)

    def test_a_resumed_run_is_the_unbroken_one(self) -> None:
        for unbroken, after in (rank["resumed"] for rank in self._results()):
            expect_equal(after, unbroken, "the losses after a load")

    def test_nothing_is_left_after_teardown(self) -> None:
        for has_group, threads in (rank["left"] for rank in self._results()):
            expect(not has_group, "a process group is left after teardown()")
            expect(threads <= 0, f"{threads} threads are left after teardown()")


@functools.cache
def _exercised(kit: type[StrategyConformance]) -> list[dict[str, Any]]:
    return kit.run_ranks("exercise")
