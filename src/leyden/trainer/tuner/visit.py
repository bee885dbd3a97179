"""A visit of a finder to a trainer: the entry point runs with it in front of the other callbacks, and ends when it is done."""

from dataclasses import dataclass
from typing import Any

from leyden.core.errors import ConfigError
from leyden.trainer.data.sources import is_datamodule

METHODS = ("fit", "validate", "test", "predict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the entry point reads, as it was given."""

    train_dataloaders: Any = None
    val_dataloaders: Any = None
    dataloaders: Any = None
    datamodule: Any = None

    @property
    def used_datamodule(self) -> Any:
        """The data module, also where it stands in the place of loaders."""
        places = (self.datamodule, self.train_dataloaders, self.dataloaders)
        return next((given for given in places if is_datamodule(given)), None)

    def check(self, method: str) -> None:
        """Refuse an unknown method, and loaders of another one.

        Raises:
            ConfigError: It is one of these.
        """
        if method not in METHODS:
            raise ConfigError(f"method {method!r} is invalid. Should be one of {METHODS}.")
        if method == "fit" and self.dataloaders is not None:
            raise ConfigError(
                f"In tuner with method={method!r}, `dataloaders` should be None, please consider setting `train_dataloaders` and "
                "`val_dataloaders` instead."
            )
        if method != "fit" and (self.train_dataloaders is not None or self.val_dataloaders is not None):
            raise ConfigError(
                f"In tuner with method={method!r}, `train_dataloaders` and `val_dataloaders` should be None, please consider setting "
                "`dataloaders` instead."
            )


def visit(trainer: Any, model: Any, data: Data, finder: Any, method: str) -> None:
    """Run `method` until the finder, which must have `ends_run`, has found what it looks for."""
    finder.ends_run = True
    trainer.callbacks = [finder, *trainer.callbacks]
    try:
        if method == "fit":
            trainer.fit(model, data.train_dataloaders, data.val_dataloaders, data.datamodule)
        elif method == "predict":
            trainer.predict(model, data.dataloaders, data.datamodule, return_predictions=False)
        else:
            getattr(trainer, method)(model, data.dataloaders, verbose=False, datamodule=data.datamodule)
    finally:
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not finder]
