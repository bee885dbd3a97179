"""The error tree: messages, pickling, hints."""

import enum
import pickle

import pytest

from leyden.core import errors
from leyden.core.errors import (
    CheckpointKeyError,
    LeydenError,
    MissingDependencyError,
    RankFailedError,
    RemoteError,
    StorageError,
    closest,
    listed,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LeydenError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_shown_as_it_was_written(kind: type[LeydenError]) -> None:
    assert str(kind("key='a' is missing")) == "key='a' is missing"


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_the_way_to_another_process(kind: type[LeydenError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(again) is kind
    assert str(again) == "what happened"


def test_a_remote_traceback_survives_too() -> None:
    again = pickle.loads(pickle.dumps(RemoteError("failed", "Traceback …")))
    assert again.remote_traceback == "Traceback …"


def test_the_rank_that_failed_and_its_status_survive_too() -> None:
    again = pickle.loads(pickle.dumps(RankFailedError("failed", "Traceback …", rank=3, exit_code=137)))
    assert (again.rank, again.exit_code, again.remote_traceback) == (3, 137, "Traceback …")


def test_old_code_catches_what_it_always_caught() -> None:
    pairs = ((CheckpointKeyError, KeyError), (MissingDependencyError, ImportError), (StorageError, OSError), (RemoteError, RuntimeError))
    for kind, old in pairs:
        assert issubclass(kind, old)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("fdsp", " Did you mean 'fsdp'?"), ("DDPP", " Did you mean 'ddp'?"), ("LEYDEN_HOMES", " Did you mean 'LEYDEN_HOME'?"), ("zzz", "")],
)
def test_the_closest_name_is_proposed_as_it_is_spelt(name: str, hint: str) -> None:
    assert closest(name, ["ddp", "fsdp", "LEYDEN_HOME"]) == hint


def test_enums_are_options_too() -> None:
    kind = enum.StrEnum("kind", ["apple", "pear"])
    assert closest("aple", kind) == " Did you mean 'apple'?"


def test_options_are_listed_as_they_are_written() -> None:
    assert listed(["a", 1]) == "'a', 1"
