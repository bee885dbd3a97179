"""What a load costs, counted and not timed: memory beside the model, and bytes read by each rank."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.ranks import run_ranks
from tests.support.sharded_ranks import ShardedRanks

MIB = 1 << 20


class Weights(nn.Module):
    def __init__(self, mebibytes: int, fill: float) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.full((512, 512), fill)) for _ in range(mebibytes)])


def memory(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def peak_of_load(folder: str, format: str, mebibytes: int) -> float:
    strategy = SingleDeviceStrategy("cpu")
    for size in (1, mebibytes):  # the small one first: imports and first allocations do not count
        path = f"{folder}/{size}"
        saver.write(path, {"model": Weights(size, 1.0)}, strategy=strategy, format=format)
        model = Weights(size, 0.0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = memory("VmRSS")
        saver.read(path, {"model": model}, strategy=strategy)
        peak = memory("VmHWM") - before
    assert all(bool((part == 1).all()) for part in model.parts)
    return 1 + peak / (mebibytes * MIB)


@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_load_never_holds_the_model_twice(tmp_path: Path, format: str) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc")
    (peak,) = run_ranks(peak_of_load, 1, args=(str(tmp_path), format, 64), join=False)
    assert peak <= 1.1


def bytes_read(folder: str, mebibytes: int) -> tuple[int, int]:
    from torch.distributed.fsdp import fully_shard

    strategy = ShardedRanks()
    model = fully_shard(Weights(mebibytes, 1.0))
    saver.write(folder, {"model": model}, strategy=strategy)
    saver.read(folder, {"model": model}, strategy=strategy)  # imports do not count
    before = rchar()
    saver.read(folder, {"model": model}, strategy=strategy)
    return rchar() - before, mebibytes * MIB // 2


def rchar() -> int:
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


def test_each_rank_reads_its_own_shards_and_little_else(tmp_path: Path) -> None:
    if not Path("/proc/self/io").exists():
        pytest.skip("needs Linux's /proc")
    for read, own in run_ranks(bytes_read, 2, args=(str(tmp_path / "saved"), 32)):
        assert read <= own * 1.01


def new_buffers(folder: str) -> list[int]:
    from torch.distributed.fsdp import fully_shard

    strategy, found = ShardedRanks(), []
    state = {"model": fully_shard(Weights(2, 1.0)), "step": 0}
    for _ in range(3):
        saver.write(folder, state, strategy=strategy, blocking=False)
        saver.wait_for_saves()
        found.append(saver._buffers.allocations)
    return found


def test_no_new_staging_buffers_from_the_second_save_on(tmp_path: Path) -> None:
    for first, second, third in run_ranks(new_buffers, 2, args=(str(tmp_path / "saved"),)):
        assert 0 < first == second == third
