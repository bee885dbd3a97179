from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import CheckpointKeyError, ConfigError, ConfigTypeError, CorruptDataError, NotFoundError, StorageError
from leyden.core.failpoints import InjectedError, armed
from leyden.fabric.checkpoint import saver
from leyden.fabric.checkpoint.folder import CheckpointFolder
from leyden.fabric.strategies.single import SingleDeviceStrategy


class OneProcess:
    """What a `CheckpointFolder` needs of a Fabric, on one device."""

    global_rank = 0

    def __init__(self, format: str = "auto") -> None:
        self.strategy = SingleDeviceStrategy("cpu")
        self.format = format

    def save(self, path: str, state: dict[str, Any], *, blocking: bool = True) -> None:
        saver.write(path, state, strategy=self.strategy, blocking=blocking, format=self.format)

    def load(self, path: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
        return saver.read(path, state, strategy=self.strategy)


@pytest.fixture(params=["file", "directory"])
def fabric(request: pytest.FixtureRequest) -> OneProcess:
    return OneProcess(request.param)


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs") if request.param == "local" else f"memory://{tmp_path.name}-{request.node.name}/runs"


def names(folder: CheckpointFolder) -> list[str]:
    return [path.rpartition("/")[2] for path in folder.list()]


def test_the_newest_is_found_again(fabric: OneProcess, place: str) -> None:
    folder = CheckpointFolder(fabric, place)
    state = {"step": 0, "model": nn.Linear(2, 2)}
    assert folder.resume(state) is False
    assert folder.latest() is None
    for step in (100, 200):
        state["step"] = step
        path = folder.save(state, step=step)
    weight = state["model"].weight.detach().clone()
    state = {"step": 0, "model": nn.Linear(2, 2)}
    assert CheckpointFolder(fabric, place).resume(state) is True
    assert state["step"] == 200
    assert torch.equal(state["model"].weight, weight)
    assert folder.latest() == path
    assert names(folder) == ["step-00000100", "step-00000200"]


def test_a_path_that_ends_in_latest_stands_for_the_newest(fabric: OneProcess, place: str) -> None:
    folder = CheckpointFolder(fabric, place)
    for step in (1, 2):
        folder.save({"step": step}, step=step, blocking=True)
    assert fabric.load(f"{place}/latest") == {"step": 2}


def test_a_folder_stands_for_its_newest(fabric: OneProcess, tmp_path: Path) -> None:
    CheckpointFolder(fabric, tmp_path).save({"step": 2}, step=2, blocking=True)
    assert fabric.load(str(tmp_path)) == {"step": 2}


def test_any_step_can_be_asked_for(fabric: OneProcess, place: str) -> None:
    folder = CheckpointFolder(fabric, place)
    for step in (1, 2):
        folder.save({"step": step}, step=step)
    for which in (1, "step-00000001"):
        state = {"step": 0}
        assert folder.resume(state, which) is True
        assert state == {"step": 1}
    with pytest.raises(NotFoundError, match="no checkpoint at"):
        folder.resume({"step": 0}, 3)


def test_pruning_spares_the_newest_the_multiples_and_the_pinned(fabric: OneProcess, place: str) -> None:
    folder = CheckpointFolder(fabric, place, keep_last=2, keep_every=30)
    for step in range(10, 101, 10):
        folder.save({"step": step}, step=step, blocking=step % 20 == 0, pinned=step == 20)
    saver.wait_for_saves()
    assert [int(name[-3:]) for name in names(folder)] == [20, 30, 60, 90, 100]
    reopened = CheckpointFolder(fabric, place, keep_last=1)
    reopened.save({"step": 110}, step=110, blocking=True)
    assert [int(name[-3:]) for name in names(reopened)] == [20, 110]


def test_after_a_resume_at_an_older_step_the_new_branch_counts_as_newest(fabric: OneProcess, place: str) -> None:
    folder = CheckpointFolder(fabric, place, keep_last=2)
    for step in (40, 50, 60):
        folder.save({"step": step}, step=step, blocking=True)
    folder.save({"step": 51}, step=51, blocking=True)
    assert [int(name[-3:]) for name in names(folder)] == [50, 51]
    state = {"step": 0}
    folder.resume(state)
    assert state["step"] == 51


def test_a_damaged_one_is_skipped_with_a_warning(fabric: OneProcess, tmp_path: Path) -> None:
    folder = CheckpointFolder(fabric, tmp_path)
    for step in (1, 2, 3):
        folder.save({"step": step, "model": nn.Linear(9, 9)}, step=step, blocking=True)
    for step in (2, 3):
        path = tmp_path / f"step-{step:08d}"
        broken = path if path.is_file() else path / "model.safetensors"
        broken.write_bytes(broken.read_bytes()[:-5])
    state = {"step": 0, "model": nn.Linear(9, 9)}
    with pytest.warns(UserWarning, match="cannot be loaded, trying the one before") as caught:
        assert folder.resume(state) is True
    assert len(caught) == 2
    assert state["step"] == 1


def test_when_all_are_damaged_training_does_not_start_anew(fabric: OneProcess, tmp_path: Path) -> None:
    folder = CheckpointFolder(fabric, tmp_path)
    folder.save({"step": 1}, step=1, blocking=True)
    path = tmp_path / "step-00000001"
    broken = path if path.is_file() else path / "train.pt"
    broken.write_bytes(broken.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="cannot be loaded"), pytest.raises(CorruptDataError, match="none of the 1 checkpoints"):
        folder.resume({"step": 0})


def test_a_state_that_does_not_fit_is_no_damage(fabric: OneProcess, tmp_path: Path) -> None:
    folder = CheckpointFolder(fabric, tmp_path)
    for step in (1, 2):
        folder.save({"model": nn.Linear(2, 2)}, step=step, blocking=True)
    with pytest.raises(ConfigError, match="does not fit"):
        folder.resume({"model": nn.Linear(3, 3)})
    with pytest.raises(CheckpointKeyError, match="does not hold 'other'"):
        folder.resume({"other": 1})


def test_published_but_not_yet_latest_is_found(fabric: OneProcess, tmp_path: Path) -> None:
    folder = CheckpointFolder(fabric, tmp_path, keep_last=1)
    folder.save({"step": 1}, step=1, blocking=True)
    with armed("checkpoint.latest=raise"), pytest.raises(InjectedError):
        folder.save({"step": 2}, step=2, blocking=True)
    state = {"step": 0}
    assert CheckpointFolder(fabric, tmp_path).resume(state)
    assert state["step"] == 2
    assert (tmp_path / "latest").read_text() == "step-00000001\n"


def test_a_failed_save_leaves_latest_and_the_older_ones(fabric: OneProcess, tmp_path: Path) -> None:
    folder = CheckpointFolder(fabric, tmp_path, keep_last=1)
    folder.save({"step": 1}, step=1, blocking=True)
    with armed("checkpoint.in_file=enospc"):
        folder.save({"step": 2}, step=2)
        assert folder.resume({"step": 0})  # the error is the next save's to raise
        with pytest.raises(StorageError, match="No space left on device"):
            saver.wait_for_saves()
    assert names(folder) == ["step-00000001"]
    assert (tmp_path / "latest").read_text() == "step-00000001\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "step-00000001"]


def test_what_a_kill_between_two_renames_left_is_listed(fabric: OneProcess, tmp_path: Path) -> None:
    if fabric.format == "file":
        pytest.skip("files are replaced by one rename")
    folder = CheckpointFolder(fabric, tmp_path)
    folder.save({"step": 1}, step=1, blocking=True)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000001.old-00000000z8000000000z")
    assert names(folder) == ["step-00000001"]


def test_inside_a_job_its_step_directory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEP_DIR", "OUTPUT_DIR", "ATTEMPT_DIR", "METRICS_FILE"):
        monkeypatch.setenv(f"LEYDEN_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("LEYDEN_JOB_ID", "job-1")
    folder = CheckpointFolder(OneProcess())
    folder.save({"step": 1}, step=1, blocking=True)
    assert folder.list() == [str(tmp_path / "step_dir" / "checkpoints" / "step-00000001")]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "outside of a Leyden job"),
        ({"directory": "x", "keep_last": 0}, ConfigError, "keep_last=0"),
        ({"directory": "x", "keep_last": 1, "keep_every": True}, ConfigError, "keep_every=True"),
        ({"directory": "x", "keep_every": 2}, ConfigError, "no effect without keep_last"),
        ({"directory": "x", "prefix": "a/b"}, ConfigError, "prefix='a/b'"),
    ],
)
def test_arguments_without_effect_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEYDEN_JOB_ID", raising=False)
    with pytest.raises(error, match=message):
        CheckpointFolder(OneProcess(), **options)


@pytest.mark.parametrize("step", [-1, 1.5, True, None])
def test_a_step_is_a_whole_number(tmp_path: Path, step: Any) -> None:
    with pytest.raises(ConfigTypeError, match="expected an integer of at least 0"):
        CheckpointFolder(OneProcess(), tmp_path).save({}, step=step)
