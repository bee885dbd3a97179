"""`ModelCheckpoint`: saves the run by steps, epochs or time, keeps the best, and `last.ckpt`, which is always the newest.

Three questions, each with a file of its own: *when* (`save_trigger`, and the hooks here), *what it is called*
(`checkpoint_names`), *which stay* (`top_k`). Rank 0 answers them, all ranks get the answer as a `Plan`, and then:

```
take over the plan's state → write one file → second names for it → remove what fell out of the best
```

The state changes before the write, so a file describes itself, and is put back if the write fails. Nothing is removed
before the new file is complete, so a process that is killed anywhere leaves the ones before.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import timedelta
from functools import partial
from typing import Any

import yaml
from torch import Tensor

from leyden.core.errors import ConfigError, listed
from leyden.core.storage import open_storage, split_url
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.callbacks import checkpoint_files as on_disk
from leyden.trainer.callbacks import checkpoint_names as names
from leyden.trainer.callbacks.failed_run import save_in_failed_run
from leyden.trainer.callbacks.save_options import SaveLast, check_last, check_top_k, when
from leyden.trainer.callbacks.save_plan import PATHS, STEPS, Plan, Planner, attributes_of, fill_for, path_of
from leyden.trainer.callbacks.save_trigger import SaveTrigger
from leyden.trainer.callbacks.top_k import Mode, Ranking, worst_score
from leyden.trainer.callbacks.validation_place import validates_once_per_epoch
from leyden.trainer.core.callback import Checkpoint
from leyden.trainer.engine.every import Every


class ModelCheckpoint(Checkpoint):
    """Saves checkpoints while a model is trained.

    Args:
        dirpath: A directory or URL; absent: beside the first logger's files, else `checkpoints` below the root directory.
        filename: A template such as `"{epoch}-{val_loss:.2f}"`; absent: `{epoch}-{step}`.
        monitor: The logged metric that decides which are the best; `None` keeps the newest.
        verbose: Whether to say what was saved.
        save_last: Whether to keep `last.ckpt` too, the newest state; `"link"` makes it a symlink to the newest file.
        save_top_k: How many of the best to keep; -1 keeps all, 0 none.
        save_on_exception: Whether to save when an exception, Ctrl-C included, ends the run.
        save_weights_only: Whether to leave out what resuming needs.
        mode: Whether `"min"` or `"max"` of the metric is best.
        auto_insert_metric_name: Whether a value in a file name comes after its name: `epoch=3`.
        every_n_train_steps: Save every so many steps.
        train_time_interval: Save whenever that long passed.
        every_n_epochs: Save every so many epochs; 1 if nothing else is given.
        save_on_train_epoch_end: Whether epochs are saved at their end, rather than when validation ends; `None` does so
            where validation runs once, at the epoch's end, or not at all.
        enable_version_counter: Whether a name that is taken gets `-v1`, `-v2`, …; else the file there is replaced.
        every: Any other rhythm, such as `"30min"`, `"1000step"`, `"0.25epoch"`.

    Raises:
        ConfigError: Values that contradict each other or are out of range.
        ConfigTypeError: A number that is no integer.

    Example:
        ```python
        best = ModelCheckpoint(monitor="val_acc", mode="max", save_last=True, filename="{epoch}-{val_acc:.3f}")
        trainer = Trainer(callbacks=[best])
        trainer.fit(model, train_loader, val_loader)
        print(best.best_model_path, best.best_model_score)
        ```
    """

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"
    STARTING_VERSION = 1

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        dirpath: Any = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        save_last: SaveLast = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        save_weights_only: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        mode: Mode = "min",
        auto_insert_metric_name: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,  # noqa: FBT001 - the documented signature
        enable_version_counter: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        *,
        every: "str | Every | None" = None,
    ) -> None:
        self.dirpath: str | None = None if dirpath is None else names.absolute(dirpath)
        check_top_k(save_top_k, monitor, mode)
        check_last(save_last, self.dirpath)
        self._when = when(every_n_train_steps, train_time_interval, every_n_epochs, every)
        self._every = None if every is None else str(every)
        self.filename = filename
        self.monitor = monitor
        self.verbose = verbose
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.save_on_exception = save_on_exception
        self.save_weights_only = save_weights_only
        self.mode: Mode = mode
        self.auto_insert_metric_name = auto_insert_metric_name
        self._save_on_train_epoch_end = save_on_train_epoch_end
        self.enable_version_counter = enable_version_counter
        self._trigger = SaveTrigger(self._when.every, f"checkpoint:{self.state_key}")
        self.resumed_from: str | None = None
        self.has_validated = False
        self._first_step: int | None = None  # of the training that runs
        self._forget()

    def _forget(self) -> None:
        """Know of no checkpoint."""
        self.best_model_score: Tensor | None = None
        self.best_model_path = ""
        self.current_score: Tensor | None = None
        self.best_k_models: dict[str, Tensor] = {}
        self.kth_best_model_path = ""
        self.kth_value: Tensor = worst_score(self.mode)
        self.last_model_path = ""
        self.handled_step = 0  # the step of the latest trigger that was carried out
        self.written_step = 0  # … of the latest file
        self.last_step = 0  # … of the state in `last_model_path`

    @property
    def state_key(self) -> str:
        """Tells apart savers of another metric or another rhythm."""
        given = {} if self._every is None else {"every": self._every}
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._when.every_n_train_steps,
            every_n_epochs=self._when.every_n_epochs,
            train_time_interval=self._when.train_time_interval,
            **given,
        )

    @property
    def every_n_epochs(self) -> int:
        """After how many epochs each is saved; 0 where something else decides."""
        return self._when.every_n_epochs

    # -- when ----------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find out where checkpoints go; warn if others lie there."""
        if stage != "fit":
            return
        self._first_step = None
        if self.dirpath is None:
            found = names.absolute(names.default_directory(list(trainer.loggers), str(trainer.default_root_dir)))
            self.dirpath = trainer.strategy.broadcast(found)
        check_last(self.save_last, self.dirpath)
        is_fresh = trainer.ckpt_path is None and not trainer.fast_dev_run
        if trainer.is_global_zero and is_fresh and self.save_top_k != 0 and not on_disk.is_empty(self.dirpath):
            rank_zero_warn(f"Checkpoint directory {self.dirpath} exists and is not empty. Names that are taken get a version: -v1, -v2, …")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count, or go on."""
        self.has_validated = False
        self.resumed_from = None if trainer.ckpt_path is None else names.absolute(trainer.ckpt_path)
        if max(self.handled_step, self.written_step, self.last_step) > trainer.global_step:  # another run, with the same callback
            self.handled_step = self.written_step = self.last_step = 0
        self._first_step = trainer.global_step
        self._trigger.start(trainer)
        if self._save_on_train_epoch_end is False and self.every_n_epochs and not trainer.enable_validation:
            rank_zero_warn("save_on_train_epoch_end=False, and there is no validation: no epoch is saved. Drop the argument.")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save if steps or time say so."""
        if self._trigger.every is None or not self._is_active(trainer) or not self._trigger.ended(trainer, batch_idx):
            return
        if self._must_wait(trainer):
            self._trigger.wait_for_validation()
        else:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the epoch."""
        if self._is_active(trainer) and self._is_epoch_due(trainer) and self._saves_at_train_epoch_end(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save what waited for a metric, or the epoch."""
        if not self._is_active(trainer):
            return
        self.has_validated = True
        is_epoch = self._is_epoch_due(trainer) and not self._saves_at_train_epoch_end(trainer)
        if self._trigger.awaits_validation or is_epoch:
            self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save what still waits, and the newest state if it changed since."""
        if not self._is_active(trainer):
            return
        if self._trigger.is_due or self._trigger.awaits_validation:
            self._save(trainer)
        if self.save_last and trainer.global_step != self.last_step:
            self._carry_out(trainer, Planner.newest_state)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save what would be lost: the steps made since training began, or went on."""
        if not self._is_active(trainer) or self._first_step in (None, trainer.global_step):
            return
        wants_file = self.save_on_exception and trainer.global_step != self.written_step
        wants_last = bool(self.save_last) and trainer.global_step != self.last_step
        if wants_file or wants_last:
            plan = Planner.unranked_file if wants_file else Planner.newest_state
            save_in_failed_run(trainer, self.state_key, exception, lambda: self._carry_out(trainer, plan))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wait for the last save, so that the files are there when fit returns."""
        if stage == "fit":
            on_disk.finish_saves()

    def _is_active(self, trainer: Any) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fast_dev_run

    def _is_epoch_due(self, trainer: Any) -> bool:
        return self.every_n_epochs >= 1 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _saves_at_train_epoch_end(self, trainer: Any) -> bool:
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        return not trainer.enable_validation or validates_once_per_epoch(trainer)

    def _must_wait(self, trainer: Any) -> bool:
        """Return whether the metric to rank by is to come with the next validation."""
        if self.monitor is None or self.save_top_k == 0 or not trainer.enable_validation:
            return False
        return trainer.run.validation_is_due or not trainer.strategy.broadcast(self.monitor in trainer.callback_metrics)

    # -- doing it ------------------------------------------------------------------------------------------------

    def _save(self, trainer: Any) -> None:
        if trainer.global_step != self.handled_step:
            self._carry_out(trainer, Planner.trigger)

    def _carry_out(self, trainer: Any, make_plan: Callable[[Planner], Plan]) -> None:
        plan = _agreed(trainer, lambda: make_plan(Planner(self, trainer)))
        if plan.is_error:
            raise ConfigError(plan.problem)
        if plan.problem:
            rank_zero_warn(plan.problem)
        before, waited = {name: getattr(self, name) for name in (*PATHS, *STEPS)}, self._trigger.state_dict()
        self._take(plan.state)
        if plan.is_trigger:
            self._trigger.saving(trainer)
        links_last = plan.path is not None and not on_disk.has_own_store(trainer.strategy.checkpoint_io)
        try:
            for path in (plan.path, None if links_last else plan.last):
                if path is not None:
                    trainer.save_checkpoint(path, self.save_weights_only)
        except BaseException:
            self._take(before)
            self._trigger.load_state_dict(waited)
            raise
        if plan.is_trigger:
            self._trigger.saved(trainer)
        if plan.path or plan.last:
            self._saved(trainer, plan, links_last=links_last)
        elif self.verbose:
            rank_zero_info(plan.report)

    def _saved(self, trainer: Any, plan: Plan, *, links_last: bool) -> None:
        if self.verbose and plan.report:
            rank_zero_info(plan.report)
        if trainer.is_global_zero:
            on_disk.after_saves(partial(self._tidy, plan, trainer.strategy.checkpoint_io, links_last=links_last))
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)

    def _tidy(self, plan: Plan, plugin: Any, *, links_last: bool) -> None:
        """Name the newest file `last`, and only then remove: a link must not lose what it points to."""
        if plan.path is not None and plan.last is not None and links_last:
            on_disk.add_name(plan.path, plan.last, is_link=self.save_last == "link")
        for path in plan.remove:
            on_disk.delete(path, plugin)

    def _take(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what there is on disk, how good it is, and when to save next."""
        state = {"monitor": self.monitor, "dirpath": self.dirpath, **{name: getattr(self, name) for name in PATHS}}
        position = {**self._trigger.state_dict(), **{name: getattr(self, name) for name in STEPS}}
        return {**state, "best_k_models": dict(self.best_k_models), "position": position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; of another directory only the best path, and of files that are gone nothing."""
        position = state_dict.get("position")  # absent in files of Lightning
        if position is not None:
            self._trigger.load_state_dict(position)
            self._take({name: int(position[name]) for name in STEPS})
        if self.dirpath is None:  # of a run that was in another process
            self.dirpath = state_dict.get("dirpath")
        if state_dict.get("dirpath", self.dirpath) != self.dirpath:
            rank_zero_warn(
                f"The dirpath has changed from {state_dict['dirpath']!r} to {self.dirpath!r}: of the saved state only `best_model_path` is "
                "taken over, and what is saved there from now on is ranked anew."
            )
            self.best_model_path = state_dict["best_model_path"]
            self.last_step = self.written_step = 0
            return
        self._take({name: deepcopy(state_dict[name]) for name in PATHS if name in state_dict})
        self._drop_what_is_gone()

    def _drop_what_is_gone(self) -> None:
        paths = {path for path in (*self.best_k_models, self.best_model_path, self.last_model_path) if path}
        gone = {path for path in paths if not on_disk.exists(path)}
        if not gone:
            return
        rank_zero_warn(f"These checkpoints are gone, and are no longer counted among the kept ones: {listed(sorted(gone))}.")
        if gone & set(self.best_k_models):
            ranking = Ranking(mode=self.mode, keep=self.save_top_k, scores=self.best_k_models)
            self._take(attributes_of(ranking.only(set(self.best_k_models) - gone)))
        if self.best_model_path in gone:
            self.best_model_path = ""
        if self.last_model_path in gone:
            self.last_model_path, self.last_step = "", 0

    # -- documented helpers --------------------------------------------------------------------------------------

    def format_checkpoint_name(
        self, metrics: dict[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Return the path of a checkpoint: the template filled with metrics.

        Args:
            metrics: Name → number or tensor; what is absent is 0.
            filename: Another template.
            ver: A version, added as `-v3`.
            prefix: Put before the name, joined by `-`.

        Example:
            >>> ModelCheckpoint(filename="{epoch}-{val_loss:.2f}").format_checkpoint_name({"epoch": 2, "val_loss": 0.123})
            'epoch=2-val_loss=0.12.ckpt'
        """
        stem = fill_for(self, self.filename if filename is None else filename, metrics)
        parts = [*([prefix] if prefix else []), stem, *([f"v{ver}"] if ver is not None else [])]
        return path_of(self, self.CHECKPOINT_JOIN_CHAR.join(parts))

    def to_yaml(self, filepath: Any = None) -> None:
        """Write the best checkpoints and their scores as YAML; absent: to `best_k_models.yaml` beside them."""
        place = names.join(self.dirpath, "best_k_models.yaml") if filepath is None else names.absolute(filepath)
        text = yaml.safe_dump({path: float(score) for path, score in self.best_k_models.items()})
        root, name = split_url(place)
        open_storage(root).write(name, text.encode())

    def find_last(self, loggers: Iterable[Any], root_dir: str) -> list[str]:
        """Return the files that stand for a newest state where this would save, such as `last.ckpt` and `last-v1.ckpt`.

        Args:
            loggers: As `trainer.loggers`.
            root_dir: As `trainer.default_root_dir`.
        """
        directory = self.dirpath or names.absolute(names.default_directory(list(loggers), str(root_dir)))
        pattern = re.compile(names.pattern(self.CHECKPOINT_NAME_LAST) + ".*" + re.escape(self.FILE_EXTENSION.rstrip("/")))
        return [names.join(directory, name) for name in on_disk.names_in(directory) if pattern.fullmatch(name)]

    def file_exists(self, filepath: Any, trainer: Any) -> bool:
        """Return whether rank 0 finds a checkpoint there; every rank must call it."""
        return trainer.strategy.broadcast(on_disk.exists(names.absolute(filepath)) if trainer.is_global_zero else False)


def _agreed(trainer: Any, make_plan: Callable[[], Plan]) -> Plan:
    """Return rank 0's plan on every rank; its error is raised on every rank, so that none waits for the others."""
    outcome: Plan | Exception | None = None
    if trainer.is_global_zero:
        try:
            outcome = make_plan()
        except Exception as error:  # noqa: BLE001 - raised below, everywhere
            outcome = error
    outcome = trainer.strategy.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, Plan)  # noqa: S101 - for the type checker
    return outcome
