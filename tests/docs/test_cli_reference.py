"""The page about the command line is what the parsers say."""

from pathlib import Path

from leyden.cli.reference import render

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"


def test_cli_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: make docs"
