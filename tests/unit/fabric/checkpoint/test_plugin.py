import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, NotFoundError, StorageError, UnsupportedError
from leyden.core.failpoints import armed
from leyden.fabric.checkpoint import saver
from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.training_state import assert_same_state, train, training_state


class Memory(CheckpointIO):
    """A plug-in that keeps checkpoints in a dictionary, and can be slow or fail."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}
        self.options: Any = None
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        self.gate.wait(10)
        if self.fails:
            raise OSError("the service is down")
        self.options = storage_options
        self.stored[path] = checkpoint

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.stored[path]

    def remove_checkpoint(self, path: str) -> None:
        del self.stored[path]


class MemoryWithExtras(Memory):
    stores_extras = True

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None, *, extras: Any = None) -> None:
        super().save_checkpoint({**checkpoint, "__leyden__": extras}, path, storage_options)


def test_a_foreign_plugin_gets_exactly_the_users_dictionary() -> None:
    plugin = Memory()
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=plugin)
    state = training_state()
    train(state)
    with pytest.warns(UserWarning, match="Memory stores exactly the state: random generators"):
        saver.write("there", state, strategy=strategy, storage_options={"key": 1})
    assert plugin.stored["there"].keys() == state.keys()
    assert plugin.options == {"key": 1}
    other = training_state(1)
    assert saver.read("there", other, strategy=strategy) == {}
    assert_same_state(other, state)


def test_a_plugin_with_extras_brings_random_generators_back() -> None:
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=MemoryWithExtras())
    state = training_state()
    saver.write("there", state, strategy=strategy)
    wanted = torch.rand(2)
    saver.read("there", state, strategy=strategy)
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize("blocking", [True, False])
def test_blocking_false_works_with_any_plugin(blocking: bool) -> None:
    plugin = MemoryWithExtras()
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=plugin if not blocking else AsyncCheckpointIO(plugin))
    state = training_state()
    plugin.gate.clear()
    weight = state["model"][0].weight.detach().clone()
    saver.write("there", state, strategy=strategy, blocking=blocking)
    with torch.no_grad():
        state["model"][0].weight.zero_()
    assert plugin.stored == {}
    plugin.gate.set()
    saver.wait_for_saves()
    assert torch.equal(plugin.stored["there"]["model"]["0.weight"], weight)


def test_an_asynchronous_error_surfaces_at_the_next_save() -> None:
    plugin = MemoryWithExtras()
    plugin.fails = True
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=AsyncCheckpointIO(plugin))
    saver.write("there", {"step": 1}, strategy=strategy)
    with pytest.raises(OSError, match="the service is down"):
        saver.write("there", {"step": 2}, strategy=strategy)
    plugin.fails = False
    saver.write("there", {"step": 3}, strategy=strategy)
    assert saver.read("there", strategy=strategy) == {"step": 3}


def test_async_without_inner_is_fabrics_own_formats(tmp_path: Path) -> None:
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=AsyncCheckpointIO())
    saver.write(tmp_path / "saved", {"step": 1}, strategy=strategy, format="directory")
    assert saver.read(tmp_path / "saved", strategy=strategy) == {"step": 1}
    assert (tmp_path / "saved" / "meta.json").is_file()


def test_the_torch_plugin_is_the_single_file(tmp_path: Path) -> None:
    plugin = TorchCheckpointIO()
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=plugin)
    state = training_state()
    train(state)
    saver.write(tmp_path / "saved", state, strategy=strategy)
    other = training_state(1)
    saver.read(tmp_path / "saved", other, strategy=strategy)
    assert_same_state(other, state)
    third = training_state(2)
    saver.read(tmp_path / "saved", third)  # without the plug-in: by content
    assert_same_state(third, state)


@pytest.mark.parametrize("plugin", [TorchCheckpointIO(), AsyncCheckpointIO(TorchCheckpointIO())])
def test_plugins_work_by_hand(tmp_path: Path, plugin: CheckpointIO) -> None:
    path = str(tmp_path / "saved")
    plugin.save_checkpoint({"model": nn.Linear(1, 1), "step": 1}, path)
    loaded = plugin.load_checkpoint(path, map_location="meta")
    assert loaded["model"]["weight"].is_meta
    assert loaded["step"] == 1
    with pytest.raises(ConfigTypeError, match="takes a device"):
        (plugin.inner if isinstance(plugin, AsyncCheckpointIO) else plugin).load_checkpoint(path, map_location={"cuda": "cpu"})
    plugin.save_checkpoint({"step": 2}, path)
    assert plugin.load_checkpoint(path) == {"step": 2}
    plugin.remove_checkpoint(path)
    plugin.teardown()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFoundError):
        plugin.load_checkpoint(path)


def test_a_failed_save_of_the_torch_plugin_keeps_the_old_file(tmp_path: Path) -> None:
    plugin, path = TorchCheckpointIO(), str(tmp_path / "saved")
    plugin.save_checkpoint({"step": 1}, path)
    with armed("checkpoint.in_file=enospc"), pytest.raises(StorageError, match="No space left"):
        plugin.save_checkpoint({"step": 2}, path)
    assert plugin.load_checkpoint(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]


def test_the_torch_plugin_goes_to_urls() -> None:
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=TorchCheckpointIO())
    saver.write("memory://plugin/saved", {"step": 1}, strategy=strategy)
    assert saver.read("memory://plugin/saved", strategy=strategy) == {"step": 1}
    assert saver.read("memory://plugin/saved") == {"step": 1}
    TorchCheckpointIO().remove_checkpoint("memory://plugin/saved")
    with pytest.raises(NotFoundError):
        saver.read("memory://plugin/saved", strategy=strategy)


def test_a_plugin_gets_the_path_as_it_was_given() -> None:
    plugin = MemoryWithExtras()
    strategy = SingleDeviceStrategy("cpu", checkpoint_io=plugin)
    saver.write("s3://bucket//odd/", {"step": 1}, strategy=strategy)
    assert saver.read("s3://bucket//odd/", strategy=strategy) == {"step": 1}
    assert list(plugin.stored) == ["s3://bucket//odd/"]


class Sharded(SingleDeviceStrategy):
    state_layout = "sharded"


def test_plugins_and_parts_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="keeps its state in parts"):
        saver.write(tmp_path / "saved", {"step": 1}, strategy=Sharded("cpu", checkpoint_io=TorchCheckpointIO()))
    with pytest.raises(UnsupportedError, match="decides how it stores"):
        saver.write(
            tmp_path / "saved", {"step": 1}, strategy=SingleDeviceStrategy("cpu", checkpoint_io=TorchCheckpointIO()), format="directory"
        )


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match="takes no storage_options"):
        TorchCheckpointIO().save_checkpoint({}, str(tmp_path / "a"), storage_options={"a": 1})
    with pytest.raises(ConfigTypeError, match="expected a CheckpointIO"):
        AsyncCheckpointIO("torch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one of them is enough"):
        AsyncCheckpointIO(AsyncCheckpointIO())
