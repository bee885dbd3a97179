"""Hyper-parameters and graph, handed to loggers once per run."""

from typing import Any

from leyden.core.errors import StateError, listed
from leyden.fabric.loggers.hyperparameters import plain
from leyden.trainer.engine.run import Run


def write(run: Run) -> None:
    """Log what module and data module keep as hyper-parameters, merged.

    Raises:
        StateError: Both have a name with different values.
    """
    own, data = _logged(run.module), _logged(run.datamodule)
    conflicts = [name for name in own.keys() & data.keys() if _plain(own[name]) != _plain(data[name])]
    if conflicts:
        raise StateError(
            f"Error while merging hparams: the keys {listed(sorted(conflicts))} are present in both the LightningModule's and "
            "LightningDataModule's hparams but have different values. Rename one, or pass logger=False to save_hyperparameters."
        )
    merged = {**own, **data}
    for logger in run.trainer.loggers:
        if merged:
            logger.log_hyperparams(merged)
        logger.log_graph(run.module)
        logger.save()


def _logged(owner: Any) -> dict[str, Any]:
    if owner is None or not getattr(owner, "_log_hyperparams", False):
        return {}
    # `LightningCLI` keeps the class that was chosen among a module's arguments: not a value to compare runs by.
    return {name: value for name, value in owner.hparams_initial.items() if name != "_class_path"}


def _plain(value: Any) -> Any:
    return repr(plain(value))
