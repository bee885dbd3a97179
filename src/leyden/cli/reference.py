"""Writes docs/reference/cli.md from the parsers, so that the page cannot fall behind the commands.

`python -m leyden.cli.reference docs/reference/cli.md` (a part of `make docs`); a test compares the page with the parsers.
The tables are made here instead of taken from `--help`, whose layout differs between versions of Python and terminals.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from leyden.cli.main import GROUPS, build_parser

HEADER = """# Command line

Made from the parsers by `make docs`; do not edit. Every command takes `--help`, and ends with status 0 when all went well,
2 for what you can mend (arguments, a missing file or package), 1 for what went wrong outside, 130 after Ctrl-C.
"""


def render() -> str:
    """Return the whole page as Markdown."""
    return HEADER + "".join(_section(parser, level=2) for parser in [build_parser(list(GROUPS))])


def _section(parser: argparse.ArgumentParser, level: int) -> str:
    children = list(_commands(parser))
    arguments = [action for action in parser._actions if action.dest != "help" and action.nargs != argparse.PARSER]
    arguments.sort(key=lambda action: bool(action.option_strings))  # what has a place comes first
    parts = [f"\n{'#' * level} `{parser.prog}`\n\n{' '.join((parser.description or '').split())}\n"]
    if arguments:
        parts.append("\n| argument | values | default | meaning |\n|---|---|---|---|\n" + "".join(map(_row, arguments)))
    if children:
        parts.append("\n| command | meaning |\n|---|---|\n" + "".join(f"| `{child.prog}` | {text} |\n" for child, text in children))
    return "".join(parts) + "".join(_section(child, min(level + 1, 4)) for child, _ in children)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:  # one for each command; aliases have none
                yield action.choices[choice.dest], choice.help or ""


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    if action.choices is not None:
        values = " ".join(f"`{choice}`" for choice in action.choices)
    elif action.nargs == 0:
        values = ""
    else:
        values = getattr(action.type, "__name__", "str")
    default = "" if action.default in (None, False, argparse.SUPPRESS) or action.nargs == 0 else f"`{action.default}`"
    meaning = (action.help or "").replace("|", "\\|").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"| {names} | {values} | {default} | {meaning} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
