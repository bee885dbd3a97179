"""Which command starts the script again, for each way in which it may have been started."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leyden.core.errors import StateError
from leyden.fabric.launch.script import own_command


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes this process look as if it was started by a command."""
    monkeypatch.delattr(sys, "ps1", raising=False)

    def start(*words: str, file: str | None = None, spec: ModuleSpec | None = None, **names: Any) -> None:
        main = ModuleType("__main__")
        main.__spec__ = spec
        vars(main).update(names, **({} if file is None else {"__file__": file}))
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.setattr(sys, "orig_argv", ["python", *words])

    return start


def test_a_script_is_named_by_its_whole_path_because_it_may_have_changed_directory(started):
    started("-W", "ignore", "jobs/train.py", "--lr", "1", file="jobs/train.py")
    assert own_command() == [sys.executable, "-W", "ignore", str(Path("jobs/train.py").absolute()), "--lr", "1"]


def test_a_module_is_started_as_a_module(started):
    started("-m", "jobs.train", "--lr", "1", file="/site/jobs/train.py", spec=ModuleSpec("jobs.train", None))
    assert own_command() == [sys.executable, "-m", "jobs.train", "--lr", "1"]


def test_code_on_the_command_line_is_started_again(started):
    started("-c", "print(1)")
    assert own_command() == [sys.executable, "-c", "print(1)"]


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"words": ("-",), "file": "<stdin>"}, id="a pipe"),
        pytest.param({"words": ()}, id="nothing"),
        pytest.param({"words": ("-m", "ipykernel"), "file": "kernel.py", "get_ipython": print}, id="a notebook"),
    ],
)
def test_what_cannot_be_started_again_is_refused(started, way):
    started(*way.pop("words"), **way)
    with pytest.raises(StateError, match="no script that could be started again"):
        own_command()


def test_a_prompt_is_refused(started, monkeypatch):
    started("train.py", file="train.py")
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(StateError, match="ddp_notebook"):
        own_command()
