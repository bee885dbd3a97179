"""The page of commands is made from the parsers alone."""

import argparse

import pytest

from leyden.cli import reference


def test_every_argument_has_a_row() -> None:
    parser = argparse.ArgumentParser(prog="tool", description="Does\n  it.")
    parser.add_argument("source", help="where from | or else")
    parser.add_argument("--ranks", type=int, default=2, help="how many (default: %(default)s)")
    parser.add_argument("--to", choices=["file", "hf"], help="what to write")
    parser.add_argument("--json", action="store_true", help="print JSON")
    page = reference._section(parser, level=2)
    assert "## `tool`\n\nDoes it.\n" in page
    assert "| `source` | str |  | where from \\| or else |" in page
    assert "| `--ranks` | int | `2` | how many (default: 2) |" in page
    assert "| `--to` | `file` `hf` |  | what to write |" in page
    assert "| `--json` |  |  | print JSON |" in page


def test_commands_are_listed_and_described_below() -> None:
    parser = argparse.ArgumentParser(prog="tool")
    child = parser.add_subparsers(metavar="COMMAND").add_parser("run", help="run it", description="Run it now.")
    child.add_argument("--fast", action="store_true", help="hurry")
    page = reference._section(parser, level=2)
    assert "| `tool run` | run it |" in page
    assert "### `tool run`\n\nRun it now.\n" in page


def test_a_page_is_the_same_in_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow = reference.render()
    monkeypatch.setenv("COLUMNS", "400")
    assert reference.render() == narrow
