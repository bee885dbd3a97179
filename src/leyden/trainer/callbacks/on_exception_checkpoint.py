"""`OnExceptionCheckpoint`: one file that holds the run when an exception ended it, for the next attempt to go on from."""

import os
from typing import Any

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks import checkpoint_files as on_disk
from leyden.trainer.callbacks import checkpoint_names as names
from leyden.trainer.callbacks.failed_run import save_in_failed_run
from leyden.trainer.core.callback import Checkpoint


class OnExceptionCheckpoint(Checkpoint):
    """Saves the run when an exception ends it; the file goes when a later run ends well.

    `fit` without `ckpt_path` continues from this file if it is there.

    Args:
        dirpath: A directory or URL.
        filename: The file's name, without `.ckpt`.

    Raises:
        ConfigError: An empty name.

    Example:
        ```python
        trainer = Trainer(callbacks=[OnExceptionCheckpoint("runs/demo")])
        ```
    """

    FILE_EXTENSION = ".ckpt"

    def __init__(self, dirpath: str | os.PathLike[str], filename: str = "on_exception") -> None:
        if not filename:
            raise ConfigError("The filename cannot be empty: OnExceptionCheckpoint(dirpath, filename='on_exception').")
        self.dirpath = names.absolute(dirpath)
        self.filename = filename
        self._is_training = False

    @property
    def ckpt_path(self) -> str:
        """Where the file is, if there is one."""
        return names.join(self.dirpath, self.filename + self.FILE_EXTENSION)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget what another run was doing."""
        self._is_training = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """From here on there is something to lose."""
        self._is_training = True

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save, without hiding the exception."""
        if self._is_training and not trainer.fast_dev_run:
            self._is_training = False
            save_in_failed_run(trainer, "OnExceptionCheckpoint", exception, lambda: trainer.save_checkpoint(self.ckpt_path))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the file: training ended well."""
        if self._is_training and trainer.is_global_zero and on_disk.exists(self.ckpt_path):
            on_disk.delete(self.ckpt_path, trainer.strategy.checkpoint_io)
        self._is_training = False
