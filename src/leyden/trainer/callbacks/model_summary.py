"""`ModelSummary`: shows the layers of the model when fit begins."""

import sys
from typing import Any

from leyden.trainer.core.callback import Callback
from leyden.trainer.summary.model_summary import check_depth, summarize, summary_text


class ModelSummary(Callback):
    """Show the model's layers, parameters and size at the start of fit, on rank 0.

    Args:
        max_depth: How deep to look: 1 shows the model's own layers, 2 theirs too, -1 all, 0 shows nothing.
        summarize_kwargs: Handed to `summarize`, for subclasses that override it.

    Raises:
        ConfigError: `max_depth` is out of range.

    Example:
        ```python
        Trainer(callbacks=ModelSummary(max_depth=-1))
        ```
    """

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        check_depth(max_depth)
        self._max_depth = max_depth
        self._summarize_kwargs = summarize_kwargs

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._max_depth:
            return
        summary = summarize(pl_module, max_depth=self._max_depth)
        if trainer.is_global_zero:
            self.summarize(
                summary.columns(),
                summary.total_parameters,
                summary.trainable_parameters,
                summary.model_size,
                summary.total_training_modes,
                summary.total_flops,
                **self._summarize_kwargs,
            )

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
        """Write the summary to standard output; override it to show it elsewhere.

        Args:
            summary_data: Head and cells of each column.
            total_parameters: Parameters of the model.
            trainable_parameters: Those that require gradients.
            model_size: Megabytes of the parameters.
            total_training_modes: How many modules are in `train` and in `eval` mode.
            total_flops: Floating-point operations of one forward pass; 0 without an example input.
            summarize_kwargs: What the constructor was given besides `max_depth`.
        """
        text = summary_text(summary_data, total_parameters, trainable_parameters, model_size, total_training_modes, total_flops=total_flops)
        sys.stdout.write(f"\n{text}\n")
