"""The table that `validate` and `test` print."""

from collections.abc import Callable
from typing import Any

from leyden.core.optional import installed

_TITLES = {"validate": "Validate metric", "test": "Test metric"}
_WIDTH = 25


def show(fn: str, found: list[dict[str, float]], print_: Callable[..., Any]) -> None:
    """Print the values of each loader: a table with rich where it is installed and the output is a terminal, else plain lines."""
    names = sorted({name.split("/dataloader_idx_")[0] for values in found for name in values})
    if not names:
        return
    header = [_TITLES[fn], *(f"DataLoader {index}" for index in range(len(found)))]
    rows = [[name, *(_value(values, name, index) for index, values in enumerate(found))] for name in names]
    print_(as_text(header, rows) if not installed("rich") else as_rich(header, rows))


def _value(values: dict[str, float], name: str, index: int) -> str:
    value = values.get(name, values.get(f"{name}/dataloader_idx_{index}"))
    return "" if value is None else f"{value:.7g}"


def as_text(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of plain characters.

    Example:
        >>> print(as_text(["Test metric", "DataLoader 0"], [["loss", "0.5"]]).splitlines()[1].rstrip())
        Test metric               DataLoader 0
    """
    widths = [max(_WIDTH if column == 0 else 12, *(len(row[column]) for row in [header, *rows])) for column in range(len(header))]
    line = "─" * (sum(widths) + len(widths))
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join([line, lines[0], line, *lines[1:], line])


def as_rich(header: list[str], rows: list[list[str]]) -> str:
    """Return a table drawn by rich, as text."""
    import io

    from rich.console import Console
    from rich.table import Table

    table = Table()
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=max(60, 30 * len(header)), force_terminal=False).print(table)
    return out.getvalue().rstrip("\n")
