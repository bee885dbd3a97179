"""Checkpoints of every kind, written once and kept: what version 1 wrote must load for ever."""

from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.fabric.checkpoint import saver
from leyden.fabric.checkpoint.directory import verify
from leyden.fabric.checkpoint.layout import is_complete, read_meta
from tests.golden.checkpoints.write import golden_state, take_step
from tests.support.training_state import assert_same_tree

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "checkpoints"


@pytest.fixture
def wanted() -> dict[str, Any]:
    state = golden_state()
    take_step(state)
    return state


@pytest.mark.parametrize("name", ["file.ckpt", "full", "sharded"])
def test_golden_checkpoints_load_whole(name: str, wanted: dict[str, Any]) -> None:
    saved = saver.read(GOLDEN / name)
    assert saved.keys() == wanted.keys()
    assert_same_tree(saved["model"], dict(wanted["model"].state_dict()))
    assert_same_tree(saved["optimizer"]["state"], wanted["optimizer"].state_dict()["state"])
    assert saved["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert saved["step"] == 7
    assert saved["hparams"] == wanted["hparams"]


@pytest.mark.parametrize("name", ["file.ckpt", "full", "sharded"])
def test_golden_checkpoints_load_into_live_objects(name: str, wanted: dict[str, Any]) -> None:
    state = golden_state()
    with torch.no_grad():
        for parameter in state["model"].parameters():
            parameter.zero_()
    state["step"] = 0
    assert saver.read(GOLDEN / name, state, restore_rng=False) == {}
    assert_same_tree(dict(state["model"].state_dict()), dict(wanted["model"].state_dict()))
    assert_same_tree(state["optimizer"].state_dict()["state"], wanted["optimizer"].state_dict()["state"])
    assert state["step"] == 7


@pytest.mark.parametrize("name", ["full", "sharded"])
def test_golden_directories_have_the_checksums_they_say(name: str) -> None:
    assert is_complete(GOLDEN / name)
    verify(GOLDEN / name, read_meta(GOLDEN / name))
