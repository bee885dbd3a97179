"""Plain text: tables, and counts as people read them."""

from collections.abc import Sequence

_LETTERS = (" ", "K", "M", "B", "T")


def human_readable(count: int) -> str:
    """Return a count with at most three digits and a letter for thousands, millions, billions or trillions.

    Example:
        >>> [human_readable(count) for count in (123, 1234, 45_678, 2_000_000, 5_000_000_000_000_000)]
        ['123  ', '1.2 K', '45.7 K', '2.0 M', '5,000 T']
    """
    index = min((len(str(count)) - 1) // 3, len(_LETTERS) - 1)
    scaled = count / 1000**index
    return f"{int(scaled):,} {_LETTERS[index]}" if index == 0 or scaled >= 100 else f"{scaled:.1f} {_LETTERS[index]}"


def text_table(columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table: a head, a rule, a line for each row, another rule.

    Args:
        columns: The head and the cells of each; all of one length.

    Example:
        >>> print(text_table([("", ["0"]), ("Name", ["net"])]))
          | Name
        ---------
        0 | net
        ---------
    """
    widths = [max(len(text) for text in (head, *cells)) for head, cells in columns]
    rows = [[head for head, _ in columns], *map(list, zip(*(cells for _, cells in columns), strict=True))]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * (sum(widths) + 3 * (len(widths) - 1) + 1)
    return "\n".join([lines[0], rule, *lines[1:], rule])
