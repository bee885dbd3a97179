from pathlib import Path

import torch

from leyden.fabric.checkpoint.capture import Snapshot, capture
from leyden.fabric.checkpoint.staging import StagingBuffers
from leyden.fabric.checkpoint.tree import tensors_of
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.training_state import assert_same_tree, train, training_state


def snapshot(state: dict[str, object]) -> Snapshot:
    return capture(state, strategy=SingleDeviceStrategy("cpu"), layout="full")


def test_nothing_is_allocated_from_the_second_save_on() -> None:
    buffers, state = StagingBuffers(), training_state()
    train(state)
    buffers.stage(snapshot(state), {})
    first = buffers.allocations
    assert first > 0
    train(state)
    buffers.stage(snapshot(state), {})
    assert buffers.allocations == first


def test_copies_are_equal_and_share_no_memory() -> None:
    buffers, state = StagingBuffers(), training_state()
    train(state)
    live = snapshot(state)
    staged = buffers.stage(live, {})
    for name in ("tree", "modules", "optimizers", "rank"):
        assert_same_tree(getattr(staged, name), getattr(live, name))
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors_of([live.modules, live.optimizers])}
    assert memory.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in tensors_of([staged.modules, staged.optimizers]))


def test_a_tensor_of_another_size_gets_a_buffer_of_its_own() -> None:
    buffers = StagingBuffers()
    for size in (3, 5, 5):
        staged = buffers.stage(snapshot({"a": torch.full((size,), float(size))}), {})
        assert staged.tree["a"].tolist() == [size] * size


def test_buffers_of_what_is_gone_are_given_back() -> None:
    buffers = StagingBuffers()
    buffers.stage(snapshot({"a": torch.ones(3), "b": torch.ones(4)}), {})
    buffers.stage(snapshot({"a": torch.ones(3)}), {})
    before = buffers.allocations
    buffers.stage(snapshot({"a": torch.ones(3), "b": torch.ones(4)}), {})
    assert buffers.allocations == before + 1


def test_tied_and_odd_tensors_are_staged(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    odd = {
        "tied": [tensor, tensor],
        "view": tensor.T,
        "empty": torch.empty(0),
        "sparse": torch.eye(2).to_sparse(),
        "scalar": torch.tensor(True),
    }
    staged = StagingBuffers().stage(snapshot({"odd": odd}), {}).tree["odd"]
    assert staged["tied"][0].data_ptr() == staged["tied"][1].data_ptr()
    assert torch.equal(staged["view"], tensor.T)
    assert torch.equal(staged["sparse"].to_dense(), torch.eye(2))
    assert staged["scalar"].item() is True
