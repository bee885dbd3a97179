"""On a GPU: staging through pinned memory, and every format back onto the device."""

from pathlib import Path

import pytest
import torch

from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.training_state import assert_same_tree

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_gpus_state_comes_back(tmp_path: Path, format: str, blocking: bool) -> None:
    strategy = SingleDeviceStrategy(torch.device("cuda", 0))

    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Linear(64, 64, device="cuda")
        return model, torch.optim.AdamW(model.parameters())

    model, optimizer = build()
    model(torch.ones(1, 64, device="cuda")).sum().backward()
    optimizer.step()
    saver.write(tmp_path / "saved", {"model": model, "optimizer": optimizer}, strategy=strategy, format=format, blocking=blocking)
    drawn = torch.rand(3, device="cuda")
    saver.wait_for_saves()
    other, other_optimizer = build()
    saver.read(tmp_path / "saved", {"model": other, "optimizer": other_optimizer}, strategy=strategy)
    assert torch.equal(torch.rand(3, device="cuda"), drawn)
    assert_same_tree(dict(other.state_dict()), dict(model.state_dict()))
    assert_same_tree(other_optimizer.state_dict(), optimizer.state_dict())
    assert all(not value.is_cuda for value in saver.read(tmp_path / "saved")["model"].values())
