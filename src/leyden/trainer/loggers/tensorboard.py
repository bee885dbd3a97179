"""The TensorBoard logger with the arguments that it has for trainers: `save_dir`, and no graph unless it is asked for."""

import os
from typing import Any, final

from leyden.fabric.loggers.tensorboard import TensorBoardLogger as EventLogger
from leyden.fabric.rank_zero import rank_zero_only


@final
class TensorBoardLogger(EventLogger):
    """Logs event files to `<save_dir>/<name>/version_<n>[/<sub_dir>]`, and `hparams.yaml`; no package is needed to write them.

    Args:
        save_dir: The directory below which all experiments lie.
        name: The experiment's directory below it; `""` for none.
        version: A number, a string that is taken as it is, or `None` for the next free number.
        log_graph: Whether the module's graph is logged; it needs `example_input_array`.
        default_hp_metric: Whether hyper-parameters without a metric get `hp_metric: -1`, which makes TensorBoard show them.
        prefix: Put before each metric's name, joined by `-`.
        sub_dir: A directory below the version, for the event files.
        kwargs: `purge_step` and `filename_suffix` of `SummaryWriter`.

    Example:
        ```python
        Trainer(logger=TensorBoardLogger("logs", name="digits"))
        ```
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        default_hp_metric: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        prefix: str = "",
        sub_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(save_dir, name, version, default_hp_metric, prefix, sub_dir, log_graph=log_graph, **kwargs)

    def save(self) -> None:
        """Write every row logged so far, and `hparams.yaml`, be it empty: tools look for it in every version."""
        super().save()
        if rank_zero_only.rank == 0 and not (self._directory() / self.NAME_HPARAMS_FILE).exists():
            self._store_hyperparameters({})
