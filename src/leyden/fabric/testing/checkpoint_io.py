"""The kit for checkpoint plug-ins: what comes back, what is replaced, and what fabric does with a slow, failing or full store."""

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import LeydenError
from leyden.fabric.checkpoint.checkpoint_io import CheckpointIO
from leyden.fabric.checkpoint.layout import EXTRAS
from leyden.fabric.fabric import Fabric
from leyden.fabric.testing.checkpoint_fakes import FailingCheckpointIO, FullDiskCheckpointIO, SlowCheckpointIO
from leyden.fabric.testing.expectations import expect, expect_equal, refused, skip

_NAMES = ("plain", "a b", "ünï", "step=3,loss=0.5", "percent%20and#hash", "last.ckpt")


class CheckpointIOConformance(ABC):
    """What every checkpoint plug-in promises, by hand and through `Fabric`. Each test gets a new folder from `tmp_path`.

    Example:
        ```python
        class TestMine(CheckpointIOConformance):
            def make(self, root):
                return MyStore(bucket=root)
        ```
    """

    @abstractmethod
    def make(self, root: Path) -> CheckpointIO:
        """Return a plug-in whose store is empty; `root` is an empty folder, for one that stores in files."""

    def path(self, root: Path, name: str) -> str:
        """Return the path that users would give for a checkpoint of this name."""
        return str(root / name)

    def refusing(self, plugin: CheckpointIO, root: Path) -> AbstractContextManager[object] | None:
        """Return a context in which your store refuses to write, half-way if that can happen; `None`: it is not tried."""
        return None

    def test_what_is_stored_comes_back(self, tmp_path: Path) -> None:
        plugin, path = self.make(tmp_path), self.path(tmp_path, "saved")
        plugin.save_checkpoint(_content(1), path)
        _expect_same(plugin.load_checkpoint(path), _content(1))

    def test_what_changes_after_the_save_stays_outside(self, tmp_path: Path) -> None:
        plugin, path, content = self.make(tmp_path), self.path(tmp_path, "saved"), _content(1)
        plugin.save_checkpoint(content, path)
        content["model"]["weight"].zero_()
        content["values"]["sizes"].append(3)
        _expect_same(plugin.load_checkpoint(path), _content(1))

    def test_a_second_save_replaces_the_first(self, tmp_path: Path) -> None:
        plugin, path = self.make(tmp_path), self.path(tmp_path, "saved")
        plugin.save_checkpoint({**_content(1), "more": torch.ones(1000)}, path)
        plugin.save_checkpoint(_content(2), path)
        _expect_same(plugin.load_checkpoint(path), _content(2))

    def test_names_of_any_kind_are_places_of_their_own(self, tmp_path: Path) -> None:
        plugin = self.make(tmp_path)
        for step, name in enumerate(_NAMES):
            plugin.save_checkpoint(_content(step), self.path(tmp_path, name))
        for step, name in enumerate(_NAMES):
            _expect_same(plugin.load_checkpoint(self.path(tmp_path, name)), _content(step))

    def test_what_is_not_there_cannot_be_loaded(self, tmp_path: Path) -> None:
        with refused("loading what was never saved", LookupError, OSError):
            self.make(tmp_path).load_checkpoint(self.path(tmp_path, "never"))

    def test_what_is_removed_is_gone_and_the_rest_stays(self, tmp_path: Path) -> None:
        plugin, kept, removed = self.make(tmp_path), self.path(tmp_path, "kept"), self.path(tmp_path, "removed")
        for path in (kept, removed):
            plugin.save_checkpoint(_content(1), path)
        plugin.remove_checkpoint(removed)
        with refused("loading what was removed", LookupError, OSError):
            plugin.load_checkpoint(removed)
        plugin.remove_checkpoint(removed)  # pruning is tried again after a kill
        _expect_same(plugin.load_checkpoint(kept), _content(1))

    def test_extras_come_back_if_they_are_taken(self, tmp_path: Path) -> None:
        plugin, path = self.make(tmp_path), self.path(tmp_path, "saved")
        if not plugin.stores_extras:
            skip("stores_extras is False: random generators and loader positions are not stored")
        extras = {"ranks": [{"rng": torch.arange(3, dtype=torch.uint8)}]}
        plugin.save_checkpoint(_content(1), path, extras=extras)  # type: ignore[call-arg] - what stores_extras says
        loaded = plugin.load_checkpoint(path)
        _expect_same(loaded.pop(EXTRAS), extras)
        _expect_same(loaded, _content(1))

    def test_torn_down_twice_is_torn_down(self, tmp_path: Path) -> None:
        plugin = self.make(tmp_path)
        plugin.teardown()
        plugin.teardown()

    def test_a_refused_save_is_an_error_and_keeps_the_one_before(self, tmp_path: Path) -> None:
        plugin, path = self.make(tmp_path), self.path(tmp_path, "saved")
        plugin.save_checkpoint(_content(1), path)
        _expect_same(plugin.load_checkpoint(path), _content(1))  # so that nothing is under way
        context = self.refusing(plugin, tmp_path)
        if context is None:
            skip("the kit was not told how this store refuses: override `refusing`")
        with context, refused("a save that the store refuses", OSError, LeydenError):
            plugin.save_checkpoint(_content(2), path)
            plugin.teardown()  # a save in the background is waited for here
        _expect_same(plugin.load_checkpoint(path), _content(1))

    def test_training_goes_on_from_what_was_saved(self, tmp_path: Path) -> None:
        with _fabric(self.make(tmp_path)) as fabric:
            state, path = _training(fabric), self.path(tmp_path, "saved")
            _train(fabric, state)
            fabric.save(path, state)
            generator = torch.get_rng_state()
            unbroken = _train(fabric, state)
            other = _training(fabric)
            expect_equal(fabric.load(path, other), {}, "what is left after a load that asks for everything")
            torch.set_rng_state(generator)  # a plug-in without extras does not bring it back
            expect_equal(_train(fabric, other), unbroken, "the losses after a load")

    def test_a_slow_store_does_not_hold_up_training(self, tmp_path: Path) -> None:
        store = SlowCheckpointIO(self.make(tmp_path))
        with _fabric(store) as fabric:
            path, weight = self.path(tmp_path, "saved"), torch.ones(3)
            fabric.save(path, {"weight": weight, "step": 1}, blocking=False)
            weight.zero_()  # training goes on while the store is slow
            store.let_go()
            fabric.wait_for_saves()
            _expect_same(fabric.load(path), {"weight": torch.ones(3), "step": 1})

    def test_the_error_of_a_failing_store_comes_with_the_next_save(self, tmp_path: Path) -> None:
        store = FailingCheckpointIO(self.make(tmp_path))
        store.is_down = False
        with _fabric(store) as fabric:
            path = self.path(tmp_path, "saved")
            fabric.save(path, {"step": 1})
            store.is_down = True
            fabric.save(path, {"step": 2}, blocking=False)
            with refused("the save after one that failed in the background", ConnectionError):
                fabric.save(path, {"step": 3})
            expect_equal(fabric.load(path), {"step": 1}, "what a store holds that failed")
            store.is_down = False
            fabric.save(path, {"step": 4})
            expect_equal(fabric.load(path), {"step": 4}, "what a store holds that is well again")

    def test_a_full_disk_is_told_and_training_goes_on(self, tmp_path: Path) -> None:
        store = FullDiskCheckpointIO(self.make(tmp_path))
        store.is_full = False
        with _fabric(store) as fabric:
            path = self.path(tmp_path, "saved")
            fabric.save(path, {"step": 1})
            store.is_full = True
            with refused("a save to a full disk", OSError, words="No space left"):
                fabric.save(path, {"step": 2})
            expect_equal(fabric.load(path), {"step": 1}, "what a full disk holds")


def _content(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(3, 4, generator=generator), "bias": torch.full((4,), step, dtype=torch.bfloat16)},
        "empty": torch.empty(0),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(step),
        "values": {"sizes": [4, 8], "name": "ünï", "rate": 0.1, "nothing": None, "is_last": False},
        "step": step,
    }


def _expect_same(found: Any, expected: Any, place: str = "checkpoint") -> None:
    """Compare two trees bit for bit."""
    if isinstance(expected, Tensor):
        expect(isinstance(found, Tensor), f"{place} should be a tensor, but is {found!r}")
        expect_equal((found.dtype, found.shape), (expected.dtype, expected.shape), f"dtype and shape of {place}")
        expect(torch.equal(found.cpu(), expected), f"{place} should be {expected}, but is {found}")
    elif isinstance(expected, Mapping):
        expect_equal(set(found), set(expected), f"the keys of {place}")
        for key in expected:
            _expect_same(found[key], expected[key], f"{place}[{key!r}]")
    elif isinstance(expected, list):
        expect_equal(len(found), len(expected), f"the length of {place}")
        for index, value in enumerate(expected):
            _expect_same(found[index], value, f"{place}[{index}]")
    else:
        expect_equal(found, expected, place)


@contextlib.contextmanager
def _fabric(plugin: CheckpointIO) -> Generator[Fabric, None, None]:
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    fabric.launch()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*stores exactly the state")  # what stores_extras = False means
            yield fabric
    finally:
        fabric.strategy.teardown()


def _training(fabric: Fabric) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    wrapped, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    return {"model": wrapped, "optimizer": optimizer, "step": 0}


def _train(fabric: Fabric, state: dict[str, Any]) -> list[float]:
    losses = []
    for _ in range(3):
        state["optimizer"].zero_grad()
        loss = state["model"](torch.randn(16, 4)).square().sum()
        fabric.backward(loss)
        state["optimizer"].step()
        state["step"] += 1
        losses.append(float(loss.detach()))
    return losses
