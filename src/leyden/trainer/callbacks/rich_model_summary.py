"""`RichModelSummary`: the model summary as a table of rich; plain text where standard output is no terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leyden.trainer.callbacks.model_summary import ModelSummary
from leyden.trainer.summary.model_summary import total_lines


class RichModelSummary(ModelSummary):
    """Show the model's layers, parameters and size at the start of fit, on rank 0, with rich.

    Args:
        max_depth: How deep to look: 1 shows the model's own layers, 2 theirs too, -1 all, 0 shows nothing.
        summarize_kwargs: `header_style`, a style of rich for the heads of columns.

    Example:
        ```python
        Trainer(callbacks=RichModelSummary(max_depth=2))
        ```
    """

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        console = Console()
        if not (console.is_terminal or console.is_jupyter):
            ModelSummary.summarize(
                summary_data, total_parameters, trainable_parameters, model_size, total_training_modes, total_flops, **summarize_kwargs
            )
            return
        if summary_data:
            console.print(_layers(summary_data, summarize_kwargs.get("header_style", "bold")))
        totals = Table.grid(padding=(0, 2))
        totals.add_column(justify="left", style="bold")
        totals.add_column(justify="right")
        for label, value in total_lines(total_parameters, trainable_parameters, model_size, total_training_modes, total_flops=total_flops):
            totals.add_row(label, value)
        console.print(totals)


def _layers(columns: list[tuple[str, list[str]]], header_style: str) -> Table:
    table = Table(header_style=header_style)
    for head, _ in columns:
        is_number = head in ("Params", "Params per Device", "FLOPs", "In sizes", "Out sizes")
        table.add_column(head, justify="right" if is_number else "left", no_wrap=head == "Name", style="dim" if head == " " else "")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*map(Text, row))  # sizes in brackets are no markup
    return table
