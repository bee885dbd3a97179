"""Finding the command, exit statuses, and errors as one line."""

import argparse
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from leyden import __version__
from leyden.cli.main import GROUPS, Group, build_parser, main
from leyden.core import errors

Probe = Callable[[Callable[[argparse.Namespace], Any]], None]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Add the group `probe` whose command `act` runs what the test hands over."""

    def add(act: Callable[[argparse.Namespace], Any]) -> None:
        def add_parser(subparsers: Any) -> None:
            commands = subparsers.add_parser("probe", help="a probe").add_subparsers()
            parser = commands.add_parser("act")
            parser.add_argument("--json", action="store_true")
            parser.add_argument("--count", type=int, default=1)
            parser.set_defaults(run=act)

        module = ModuleType("leyden_probe")
        module.add_parser = add_parser  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "leyden_probe", module)
        monkeypatch.setitem(GROUPS, "probe", Group("leyden_probe", "a probe"))

    return add


def failing(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def act(args: argparse.Namespace) -> int:
        raise error

    return act


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"leyden {__version__}\n"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for name, group in GROUPS.items():
        assert f"{name} {group.help}" in lines


def test_help_imports_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, "broken", Group("leyden.no_such_module", "never imported"))
    assert main([]) == 0


@pytest.mark.parametrize("name", GROUPS)
def test_help_of_the_table_is_the_help_of_the_group(name: str) -> None:
    def lines(names: list[str]) -> dict[str, str | None]:
        (action,) = (action for action in build_parser(names)._actions if action.nargs == argparse.PARSER)
        return {choice.dest: choice.help for choice in action._choices_actions}  # type: ignore[attr-defined]

    assert lines([name]) == lines([])


def test_unknown_command_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["docter"])
    assert stop.value.code == 2
    assert "error: no command 'docter'" in (text := capsys.readouterr().err)
    assert "Did you mean 'doctor'?" in text


def test_group_without_its_command_is_refused(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(lambda args: 0)
    with pytest.raises(SystemExit) as stop:
        main(["probe"])
    assert stop.value.code == 2
    assert "`leyden probe --help`" in capsys.readouterr().err


def test_bad_argument_prints_one_error_line(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(lambda args: 0)
    with pytest.raises(SystemExit) as stop:
        main(["probe", "act", "--count", "many"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: argument --count: invalid int value: 'many'"


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_status_is_what_the_command_returns(returned: int | None, status: int, probe: Probe) -> None:
    probe(lambda args: returned)
    assert main(["probe", "act"]) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("devices=0 is refused"), 2),
        (errors.NotFoundError("no checkpoint"), 2),
        (errors.CheckpointKeyError("no key"), 2),
        (errors.MissingDependencyError("no wandb"), 2),
        (errors.ConflictError("is there already"), 2),
        (errors.StateError("not launched"), 2),
        (errors.StorageError("disk full"), 1),
        (errors.CorruptDataError("flipped"), 1),
        (errors.RemoteError("worker failed"), 1),
        (errors.RankFailedError("rank 3 failed", rank=3, exit_code=137), 137),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_status_of_an_error(error: BaseException, status: int, probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(error))
    assert main(["probe", "act"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("" if isinstance(error, KeyboardInterrupt) else f"error: {error}\n")


def test_remote_traceback_follows_the_error(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(errors.RemoteError("worker failed", "Traceback …\nValueError: 4")))
    assert main(["probe", "act"]) == 1
    assert capsys.readouterr().err == "error: worker failed\nTraceback …\nValueError: 4\n"


def test_json_error_is_json_too(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(errors.NotFoundError("nothing at 'x'")))
    assert main(["probe", "act", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": {"code": "not_found", "message": "nothing at 'x'"}}


def test_traceback_flag_lets_the_error_through(probe: Probe) -> None:
    probe(failing(errors.ConfigError("devices=0")))
    with pytest.raises(errors.ConfigError, match="devices=0"):
        main(["--traceback", "probe", "act"])


def test_a_bug_is_not_dressed_up_as_a_user_mistake(probe: Probe) -> None:
    probe(failing(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["probe", "act"])
