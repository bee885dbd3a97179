"""`RichProgressBarTheme`: the colours of `RichProgressBar`; apart from it, so that a theme needs no rich."""

from dataclasses import dataclass


@dataclass
class RichProgressBarTheme:
    """Styles of rich (`"green"`, `"bold red"`, `"#6206E0"`, …) for the parts of the bar; empty leaves the terminal's.

    Args:
        description: The words before the bar.
        progress_bar: The done part of the bar.
        progress_bar_finished: A full bar.
        progress_bar_pulse: A bar whose end nobody knows.
        batch_progress: The batches, `32/64`.
        time: The time taken and left.
        processing_speed: Batches per second.
        metrics: The metrics.
        metrics_text_delimiter: What stands between two metrics; a newline gives each its own line.
        metrics_format: The format of a metric that is a float.

    Example:
        ```python
        RichProgressBar(theme=RichProgressBarTheme(progress_bar="green", metrics_format=".1e"))
        ```
    """

    description: str = ""
    progress_bar: str = "#2f7fd6"
    progress_bar_finished: str = "#2f9e6e"
    progress_bar_pulse: str = "#2f7fd6"
    batch_progress: str = ""
    time: str = "dim"
    processing_speed: str = "dim underline"
    metrics: str = "italic"
    metrics_text_delimiter: str = " "
    metrics_format: str = ".3f"
