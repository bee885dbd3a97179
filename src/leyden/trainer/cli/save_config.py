"""`SaveConfigCallback`: writes down the whole configuration of a run beside its results."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from leyden.core.errors import ConfigError, StateError
from leyden.core.job import current_job
from leyden.core.storage import is_url, open_storage, split_url
from leyden.trainer.core.callback import Callback


class SaveConfigCallback(Callback):
    """Saves the configuration into the directory of the run's logs, once, when its first entry point begins.

    The file is what `--config` takes: the run can be repeated from it.

    Args:
        parser: What wrote and reads the configuration.
        config: The configuration.
        config_filename: The file's name.
        overwrite: Whether a file that is there is replaced.
        multifile: Whether what came from several files goes to several files again.
        save_to_log_dir: Whether the file is written; `False` for a subclass whose `save_config` puts it elsewhere.

    Raises:
        ConfigError: `save_to_log_dir=False` without a `save_config` of one's own.
    """

    def __init__(
        self,
        parser: ArgumentParser,
        config: Namespace,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        multifile: bool = False,
        save_to_log_dir: bool = True,
    ) -> None:
        self.parser = parser
        self.config = config
        self.config_filename = config_filename
        self.overwrite = overwrite
        self.multifile = multifile
        self.save_to_log_dir = save_to_log_dir
        self.already_saved = False
        if not save_to_log_dir and type(self).save_config is SaveConfigCallback.save_config:
            raise ConfigError(
                "`save_to_log_dir=False` only makes sense when subclassing SaveConfigCallback to implement `save_config`: as it is, "
                "nothing would be saved. Pass LightningCLI(save_config_callback=None) to save no configuration."
            )

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.already_saved:
            return
        if self.save_to_log_dir:
            self._save_to_log_dir(trainer)
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Save the configuration somewhere else as well: to a logger, for example. Called on rank 0 only.

        Args:
            trainer: The trainer.
            pl_module: The module.
            stage: fit, validate, test or predict.

        Example:
            ```python
            class LogConfig(SaveConfigCallback):
                def save_config(self, trainer, pl_module, stage):
                    trainer.logger.log_hyperparams({"config": self.parser.dump(self.config)})
            ```
        """

    def _save_to_log_dir(self, trainer: Any) -> None:
        folder = trainer.log_dir  # the same on all ranks
        if folder is None:
            raise StateError("The trainer has no directory for logs to save the configuration in. Pass Trainer(default_root_dir=...).")
        path = f"{folder}/{self.config_filename}" if is_url(str(folder)) else str(Path(folder) / self.config_filename)
        if not (self.overwrite or _is_continued()):
            is_there = trainer.strategy.broadcast(_exists(path) if trainer.is_global_zero else False)
            if is_there:
                raise StateError(
                    f"{type(self).__name__} expected {path} to NOT exist. Aborting to avoid overwriting results of a previous run. You can "
                    "delete the previous config file, set `LightningCLI(save_config_callback=None)` to disable config saving, or set "
                    '`LightningCLI(save_config_kwargs={"overwrite": True})` to overwrite the config file.'
                )
        if trainer.is_global_zero:
            self._write(path)

    def _write(self, path: str) -> None:
        if is_url(path):
            root, key = split_url(path)
            open_storage(root).write(key, self.parser.dump(self.config, skip_unset=False).encode("utf-8"))
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        overwrite = self.overwrite or _is_continued()
        self.parser.save(self.config, path, skip_unset=False, overwrite=overwrite, multifile=self.multifile)


def _is_continued() -> bool:
    """Return whether this is a later attempt of a job: it goes on in the directory of the first."""
    job = current_job()
    return job is not None and job.attempt > 1


def _exists(path: str) -> bool:
    if is_url(path):
        root, key = split_url(path)
        return open_storage(root).exists(key)
    return Path(path).is_file()
