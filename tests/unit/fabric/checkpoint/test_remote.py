"""A directory at a URL that is saved to again: readers find the checkpoint before it, or the new one."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, CorruptDataError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.storage import Storage, open_storage
from leyden.fabric.checkpoint import layout, remote, saver
from leyden.fabric.strategies.single import SingleDeviceStrategy

POINTS = ["before_meta", "before_upload", "before_upload:2", "before_switch", "switched"]
strategy = SingleDeviceStrategy("cpu")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/saved"


def save(url: str, step: int) -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(step)
    saver.write(url, {"step": step, "model": model}, strategy=strategy, format="directory")


def step_at(place: str | Path) -> int:
    """Return the step of the checkpoint there, which must be of one piece."""
    state = saver.read(place)
    assert bool((state["model"]["weight"] == state["step"]).all())
    return int(state["step"])


def keys(url: str) -> set[str]:
    return {entry.key for entry in open_storage(url).list()}


@pytest.mark.parametrize("point", POINTS)
def test_stopped_anywhere_the_old_or_the_new_is_read(url: str, point: str) -> None:
    for step in (1, 2, 3):  # over files beside meta.json, then over a folder
        if step > 1:
            with armed(f"checkpoint.{point}=raise"), pytest.raises(InjectedError):
                save(url, 10 * step)
            assert step_at(url) == (10 * step if point == "switched" else step - 1)
        save(url, step)
        assert step_at(url) == step


def test_nothing_is_left_of_the_one_before(url: str) -> None:
    save(url, 1)
    first = keys(url)
    assert first == {"meta.json", "train.pt", "model.safetensors", "ranks/rank-00000.pt"}
    for step in (2, 3):
        save(url, step)
        (folder,) = {key.partition("/")[0] for key in keys(url)} - {"meta.json"}
        assert keys(url) == {"meta.json", *(f"{folder}/{key}" for key in first)}


def test_what_a_killed_save_uploaded_is_deleted_by_the_next(url: str) -> None:
    save(url, 1)
    with armed("checkpoint.before_switch=raise"), pytest.raises(InjectedError):
        save(url, 2)
    half = {key.partition("/")[0] for key in keys(url) if layout.is_folder(key.partition("/")[0])}
    save(url, 3)
    assert half
    assert not half & {key.partition("/")[0] for key in keys(url)}


def test_a_first_save_stopped_before_its_end_is_no_checkpoint(url: str) -> None:
    with armed("checkpoint.before_switch=raise"), pytest.raises(InjectedError):
        save(url, 1)
    with pytest.raises(NotFoundError, match="was never finished"):
        saver.read(url)


def test_a_copy_of_a_url_that_was_saved_to_twice_is_read(url: str, tmp_path: Path) -> None:
    for step in (1, 2):
        save(url, step)
    storage = open_storage(url)
    for key in keys(url):
        (tmp_path / "copy" / key).parent.mkdir(parents=True, exist_ok=True)
        storage.download_file(key, tmp_path / "copy" / key)
    assert step_at(tmp_path / "copy") == 2
    saver.write(tmp_path / "copy", {"step": 3}, strategy=strategy, format="directory")
    assert saver.read(tmp_path / "copy") == {"step": 3}


@pytest.mark.parametrize("folder", ["../elsewhere", "save-1", 3])
def test_a_folder_of_another_name_is_damage(url: str, folder: object) -> None:
    save(url, 1)
    storage = open_storage(url)
    storage.write("meta.json", json.dumps({**json.loads(storage.read("meta.json")), "folder": folder}).encode())
    with pytest.raises(CorruptDataError, match="names the folder"):
        saver.read(url)


def test_a_reader_whose_files_are_replaced_takes_the_new_ones(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(url, 1)
    storage_class = type(open_storage(url))
    read, raced = storage_class.read, []

    def racing(self: Storage, key: str) -> bytes:
        found = read(self, key)
        if not raced:
            raced.append(True)
            save(url, 2)
        return found

    monkeypatch.setattr(storage_class, "read", racing)
    assert step_at(remote.download(url, tmp_path)) == 2


def test_a_directory_takes_the_place_of_a_single_file(url: str) -> None:
    saver.write(url, {"step": 1}, strategy=strategy, format="file")
    save(url, 2)
    assert step_at(url) == 2


def test_removing_something_else_is_refused(url: str) -> None:
    open_storage(url).write("images/1.png", b"picture")
    with pytest.raises(ConfigError, match=r"remove\(.*it holds images/1\.png"):
        saver.remove(url)
    assert keys(url) == {"images/1.png"}


def test_storage_options_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no effect on the local path"):
        strategy.save_checkpoint(tmp_path / "saved", {"step": 1}, storage_options={"region_name": "x"})
    with pytest.raises(ConfigTypeError, match="takes a mapping"):
        strategy.save_checkpoint("s3://bucket/saved", {"step": 1}, storage_options="x")
    assert list(tmp_path.iterdir()) == []
