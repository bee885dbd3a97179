"""Checkpoints in a real S3 server: shards uploaded by each rank, `meta.json` last."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from leyden.core.errors import NotFoundError, StorageError
from leyden.core.failpoints import armed
from leyden.core.storage import open_storage
from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.ranks import RanksError, run_ranks
from tests.support.s3_server import S3Server, s3_server
from tests.support.sharded_ranks import ShardedRanks

one = SingleDeviceStrategy("cpu")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server.make_bucket(f"bucket-{abs(hash(request.node.name)) % 10**8}")


def sharded_module(strategy: ShardedRanks) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    return fully_shard(nn.Linear(5, 7))


def save_and_load(url: str, killed_at: str) -> list[list[float]]:
    strategy = ShardedRanks()
    model = sharded_module(strategy)
    saver.write(url, {"model": model, "step": 1}, strategy=strategy, blocking=False)
    saver.wait_for_saves()
    state: dict[str, Any] = {"model": sharded_module(strategy), "step": 0}
    with torch.no_grad():
        state["model"].weight.zero_()
    saver.read(url, state, strategy=strategy)
    assert state["step"] == 1
    if killed_at:
        with armed(f"checkpoint.{killed_at}=kill" if dist.get_rank() == 0 else ""):
            saver.write(url, {**state, "step": 2}, strategy=strategy)
    return state["model"].weight.full_tensor().tolist()


def test_ranks_upload_their_shards(bucket: str) -> None:
    first, second = run_ranks(save_and_load, 2, args=(f"{bucket}/runs/saved", ""))
    assert first == second
    assert saver.read(f"{bucket}/runs/saved")["model"]["weight"].tolist() == first
    assert {entry.key for entry in open_storage(f"{bucket}/runs/saved").list()} == {
        "meta.json",
        "index.json",
        "train.pt",
        "shards/shard-00000.safetensors",
        "shards/shard-00001.safetensors",
        "ranks/rank-00000.pt",
        "ranks/rank-00001.pt",
    }


@pytest.mark.parametrize("point", ["before_meta", "before_switch"])
def test_killed_before_the_commit_the_checkpoint_before_is_there(bucket: str, point: str) -> None:
    with pytest.raises(RanksError, match="exit code -9"):
        run_ranks(save_and_load, 2, args=(f"{bucket}/saved", point))
    assert saver.read(f"{bucket}/saved")["step"] == 1


@pytest.mark.parametrize("format", ["file", "directory"])
def test_storage_options_reach_the_storage(server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    with monkeypatch.context() as without:
        for name in server.environ:
            without.delenv(name)
        for step in (1, 2):
            one.save_checkpoint(f"{bucket}/saved", {"step": step}, server.options, format=format)
    assert one.load_checkpoint(f"{bucket}/saved") == {"step": 2}


@pytest.mark.parametrize("format", ["file", "directory"])
def test_files_and_directories_go_up_and_come_down(bucket: str, format: str) -> None:
    for step in (1, 2):
        saver.write(f"{bucket}/saved", {"step": step, "model": nn.Linear(2, 2)}, strategy=one, format=format)
        assert saver.read(f"{bucket}/saved")["step"] == step
    saver.remove(f"{bucket}/saved")
    with pytest.raises(NotFoundError, match="no object of that name and none below it"):
        saver.read(f"{bucket}/saved")
    assert list(open_storage(bucket).list()) == []


@pytest.mark.parametrize("format", ["file", "directory"])
def test_a_failed_upload_is_a_storage_error(bucket: str, format: str) -> None:
    with armed("checkpoint.before_upload=enospc"), pytest.raises(StorageError, match="No space left"):
        saver.write(f"{bucket}/saved", {"step": 1}, strategy=one, format=format)
    saver.write(f"{bucket}/saved", {"step": 2}, strategy=one, format=format)
    assert saver.read(f"{bucket}/saved") == {"step": 2}


def test_raw_weights_are_fetched(bucket: str, tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    open_storage(bucket).upload_file(tmp_path / "model.pt", "model.pt")
    saver.read_raw(f"{bucket}/model.pt", other)
    assert torch.equal(other.weight, model.weight)
