"""`kill -9` at each point of a save, for real: the next load finds the previous or the new checkpoint, complete."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from leyden.core.failpoints import armed
from leyden.fabric.checkpoint import saver
from leyden.fabric.checkpoint.folder import CheckpointFolder
from leyden.fabric.strategies.single import SingleDeviceStrategy
from tests.support.ranks import RanksError, run_ranks
from tests.support.sharded_ranks import ShardedRanks

# Each with the hits at which it is worth dying: the first file, a later one.
FILE = ["before_write", "staged", "in_file:1", "in_file:3", "file_written", "after_write", "publish.written", "publish.renamed"]
ASIDE = ["staged", "in_file:2", "publish.written", "publish.renamed"]  # in the thread of an asynchronous save
DIRECTORY = [*FILE, "file_written:2", "file_written:3", "before_meta", "publish.aside", "publish.synced"]


def full(point: str) -> str:
    return point if "." in point else f"checkpoint.{point}"


def state_at(step: int) -> dict[str, Any]:
    model = nn.Linear(8, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(step))
    return {"model": model, "step": step}


def step_of(state: dict[str, Any]) -> int:
    """Return the step of a loaded state, which must be of one piece."""
    assert all(bool((value == state["step"]).all()) for value in state["model"].values()), state
    return int(state["step"])


def killed(function: Callable[[], None], point: str) -> bool:
    """Run in a forked process that dies at a point; False if the point was never reached."""
    pid = os.fork()
    if pid == 0:
        with armed(f"{full(point)}=kill"):
            try:
                function()
            finally:
                os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def kill_saves(folder: str, format: str, points: list[str]) -> dict[str, Any]:
    assert threading.active_count() == 1  # fork is safe
    strategy, found = SingleDeviceStrategy("cpu"), {}
    for blocking in (True, False):
        for point in points if blocking else ASIDE:
            path = Path(folder) / f"{blocking}-{point.replace(':', '-')}"

            def save(step: int, path: Path = path, blocking: bool = blocking) -> None:
                saver.write(path, state_at(step), strategy=strategy, format=format, blocking=blocking)
                saver.wait_for_saves()

            assert not killed(lambda save=save: save(1), "never")  # in a process of its own: no thread may be left in this one
            died = killed(lambda save=save: save(2), point)
            found[f"{blocking} {point}"] = (died, step_of(saver.read(path)))
            assert not killed(lambda save=save: save(3), "never")  # what the dead one left is no obstacle
            assert step_of(saver.read(path)) == 3
    return found


@pytest.mark.parametrize(("format", "points"), [("file", FILE), ("directory", DIRECTORY)])
def test_killed_anywhere_the_old_or_the_new_one_is_there(tmp_path: Path, format: str, points: list[str]) -> None:
    (found,) = run_ranks(kill_saves, 1, args=(str(tmp_path), format, points), join=False, timeout=100)
    published = {"publish.renamed", "publish.synced", "publish.aside"}  # between the renames the new one is complete: recovered
    for name, (died, step) in found.items():
        blocking, point = name.split()
        assert died == (point != "staged" or blocking == "False"), name
        assert step == (2 if point in published or not died else 1), name


def kill_first_saves(folder: str, points: list[str]) -> dict[str, bool]:
    found = {}
    for point in points:
        path = Path(folder) / point.replace(":", "-")
        save = lambda path=path: saver.write(path, state_at(1), strategy=SingleDeviceStrategy("cpu"), format="directory")  # noqa: E731 - one per case
        assert killed(save, point)
        try:
            assert step_of(saver.read(path)) == 1
            found[point] = True
        except LookupError:
            found[point] = False
    return found


def test_a_first_save_killed_anywhere_is_whole_or_absent(tmp_path: Path) -> None:
    points = [point for point in DIRECTORY if point != "staged"]
    (found,) = run_ranks(kill_first_saves, 1, args=(str(tmp_path), points), join=False)
    whole = {"publish.written", "publish.aside", "publish.renamed", "publish.synced"}  # meta.json was written: complete
    assert {point for point, is_there in found.items() if is_there} == whole


class OneProcess:
    global_rank = 0
    strategy = SingleDeviceStrategy("cpu")

    def save(self, path: str, state: dict[str, Any], *, blocking: bool = True) -> None:
        saver.write(path, state, strategy=self.strategy, blocking=blocking, format="directory")

    def load(self, path: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
        return saver.read(path, state, strategy=self.strategy)


def kill_in_folder(folder: str) -> dict[str, int]:
    found = {}
    for point in ("in_file:2", "publish.written", "publish.renamed", "latest", "before_prune", "in_remove"):
        place = Path(folder) / point.replace(":", "-")

        def save(step: int, place: Path = place) -> None:
            checkpoints = CheckpointFolder(OneProcess(), place, keep_last=1)
            checkpoints.save(state_at(step), step=step)
            saver.wait_for_saves()

        assert not killed(lambda save=save: save(1), "never")
        assert killed(lambda save=save: save(2), point)
        state = state_at(0)
        assert CheckpointFolder(OneProcess(), place).resume(state)
        assert step_of({"model": state["model"].state_dict(), "step": state["step"]}) in (1, 2)
        found[point] = state["step"]
        assert not killed(lambda save=save: save(3), "never")
        assert (place / "latest").read_text() == "step-00000003\n"
        assert CheckpointFolder(OneProcess(), place).list() == [str(place / "step-00000003")]
    return found


def test_latest_is_right_after_a_kill_anywhere(tmp_path: Path) -> None:
    (found,) = run_ranks(kill_in_folder, 1, args=(str(tmp_path),), join=False)
    assert found == {"in_file:2": 1, "publish.written": 2, "publish.renamed": 2, "latest": 2, "before_prune": 2, "in_remove": 2}


def kill_one_rank(path: str, rank: int, point: str, blocking: bool) -> None:
    strategy = ShardedRanks()
    saver.write(path, state_at(1), strategy=strategy)
    with armed(f"{full(point)}=kill" if dist.get_rank() == rank else ""):
        saver.write(path, state_at(2), strategy=strategy, blocking=blocking)
        saver.wait_for_saves()


@pytest.mark.parametrize(("rank", "point", "step"), [(0, "publish.aside", 2), (1, "in_file", 1), (1, "staged", 1)])
def test_a_rank_killed_in_a_save_leaves_a_whole_checkpoint(tmp_path: Path, rank: int, point: str, step: int) -> None:
    with pytest.raises(RanksError, match=f"rank {rank}, exit code -9"):
        run_ranks(kill_one_rank, 2, args=(str(tmp_path / "saved"), rank, point, point != "staged"))
    assert step_of(saver.read(tmp_path / "saved")) == step
