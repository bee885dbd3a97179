"""`Trainer`: the documented facade. It checks, delegates and answers questions; loops are in `loops`, a run's state is in `Run`.

Long because it has the 41 arguments, the entry points and the properties that users' code relies on, each a few lines.
"""

import copy
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.job import current_job
from leyden.core.lazy import Later
from leyden.fabric.accelerators import Accelerator
from leyden.fabric.checkpoint.checkpoint_io import CheckpointIO
from leyden.fabric.compilation import CompilePolicy, as_policy
from leyden.fabric.environments import ClusterEnvironment
from leyden.fabric.layer_sync import LayerSync, TorchSyncBatchNorm
from leyden.fabric.loggers.logger import Logger
from leyden.fabric.precision.precision import Precision
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.strategies.strategy import Strategy
from leyden.trainer.callbacks.prediction_writer import BasePredictionWriter
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.errors import NotAttachedError
from leyden.trainer.core.logging import MutedSink
from leyden.trainer.engine.plan import CallbackList
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.state import RunState
from leyden.trainer.loggers.dummy import DummyLogger
from leyden.trainer.profilers.profiler import Profiler
from leyden.trainer.trainer import results
from leyden.trainer.trainer.config import DEFAULT_EPOCHS, TrainerConfig, configure, from_environment
from leyden.trainer.trainer.info import TrainerInfo
from leyden.trainer.trainer.states import TrainerStatus

if TYPE_CHECKING:
    from leyden.fabric import arguments
    from leyden.trainer.checkpoint import content
    from leyden.trainer.data import sources
    from leyden.trainer.loops import predict as predicting
    from leyden.trainer.loops import run as loop
    from leyden.trainer.loops.predict import Prediction
    from leyden.trainer.trainer import assembly, entry, jobs
else:  # strategies, the loop, checkpoints and default callbacks come with the first trainer, not with the class: most of importing it
    arguments = Later("leyden.fabric.arguments")
    content, sources = Later("leyden.trainer.checkpoint.content"), Later("leyden.trainer.data.sources")
    predicting, loop = Later("leyden.trainer.loops.predict"), Later("leyden.trainer.loops.run")
    assembly, entry = Later("leyden.trainer.trainer.assembly"), Later("leyden.trainer.trainer.entry")
    jobs = Later("leyden.trainer.trainer.jobs")

Plugin = Precision | ClusterEnvironment | CheckpointIO | LayerSync
DEFAULTS: dict[str, Any] = {
    "accelerator": "auto", "strategy": "auto", "devices": "auto", "num_nodes": 1, "precision": None, "logger": None, "callbacks": None,
    "fast_dev_run": False, "max_epochs": None, "min_epochs": None, "max_steps": -1, "min_steps": None, "max_time": None,
    "limit_train_batches": None, "limit_val_batches": None, "limit_test_batches": None, "limit_predict_batches": None,
    "overfit_batches": 0.0, "val_check_interval": None, "check_val_every_n_epoch": 1, "num_sanity_val_steps": None,
    "log_every_n_steps": None, "enable_checkpointing": None, "enable_progress_bar": None, "enable_model_summary": None,
    "accumulate_grad_batches": 1, "gradient_clip_val": None, "gradient_clip_algorithm": None, "deterministic": None, "benchmark": None,
    "inference_mode": True, "use_distributed_sampler": True, "profiler": None, "detect_anomaly": False, "barebones": False,
    "plugins": None, "sync_batchnorm": False, "reload_dataloaders_every_n_epochs": 0, "default_root_dir": None,
    "enable_autolog_hparams": True, "model_registry": None, "suggest_integrations": True, "compile": None,
}  # fmt: skip


class Trainer(TrainerInfo):  # noqa: SIZE002, SIZE003 - the facade whose members the field knows
    """Runs a `LightningModule`: fit, validate, test, predict.

    Args:
        accelerator: Kind of device: `"auto"`, `"cpu"`, `"gpu"`, `"mps"`, …
        strategy: `"auto"`, `"ddp"`, `"fsdp"`, … or a `Strategy`.
        devices: Per node: a count, ids, or `"auto"`.
        num_nodes: Number of machines.
        precision: `"32-true"`, `"bf16-mixed"`, `"16-mixed"`, …
        logger: `True` (TensorBoard files), `False`, a logger, or several.
        callbacks: One or a list.
        fast_dev_run: Run this many batches of everything, and keep nothing.
        max_epochs: Stop after so many epochs; -1 never.
        min_epochs: Stop requests wait for so many.
        max_steps: Stop after so many optimizer steps; -1 never.
        min_steps: Stop requests wait for so many.
        max_time: Stop after `"DD:HH:MM:SS"`, `"90min"`, a timedelta, or its keywords.
        limit_train_batches: A fraction, or a number of batches.
        limit_val_batches: The same for validation.
        limit_test_batches: The same for testing.
        limit_predict_batches: The same for prediction.
        overfit_batches: Train and validate on the first few batches, unshuffled.
        val_check_interval: A fraction of the epoch, a number of batches, a time, or `"500step"`.
        check_val_every_n_epoch: Validate every so many epochs; `None` counts batches over epochs.
        num_sanity_val_steps: Validation batches before training; -1 all.
        log_every_n_steps: Rows of training metrics; 0 never.
        enable_checkpointing: Whether a `ModelCheckpoint` is added.
        enable_progress_bar: Whether a bar is added.
        enable_model_summary: Whether a summary is added.
        accumulate_grad_batches: Step every so many batches.
        gradient_clip_val: Clip gradients to this.
        gradient_clip_algorithm: `"norm"` or `"value"`.
        deterministic: Whether torch must be deterministic; `"warn"` warns where it cannot.
        benchmark: Whether cuDNN looks for the fastest algorithm.
        inference_mode: Whether evaluation runs under `torch.inference_mode`.
        use_distributed_sampler: Whether data is shared out over ranks.
        profiler: `"simple"`, `"advanced"`, `"pytorch"` or a profiler.
        detect_anomaly: Whether autograd looks for the operation that made a NaN.
        barebones: Nothing but the loop.
        plugins: Precision, ClusterEnvironment, CheckpointIO, LayerSync.
        sync_batchnorm: Whether batch norms share statistics over ranks.
        reload_dataloaders_every_n_epochs: Ask for new loaders every so many epochs.
        default_root_dir: Where files go that have no other place.
        enable_autolog_hparams: Whether hyper-parameters are logged.
        model_registry: Accepted without effect.
        suggest_integrations: Accepted without effect.
        compile: `None`, `"blocks"`, `"model"` or a `CompilePolicy`.

    Raises:
        ConfigError: An argument cannot be right, or two contradict each other.

    Example:
        ```python
        trainer = Trainer(max_epochs=3)
        trainer.fit(model, train_loader, val_loader)
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        *,
        accelerator: Accelerator | str = "auto",
        strategy: Strategy | str = "auto",
        devices: int | str | list[int] = "auto",
        num_nodes: int = 1,
        precision: int | str | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: Callback | list[Callback] | None = None,
        fast_dev_run: int | bool = False,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = None,
        log_every_n_steps: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: bool | Literal["warn"] | None = None,
        benchmark: bool | None = None,
        inference_mode: bool = True,
        use_distributed_sampler: bool = True,
        profiler: Profiler | str | None = None,
        detect_anomaly: bool = False,
        barebones: bool = False,
        plugins: Plugin | list[Plugin] | None = None,
        sync_batchnorm: bool = False,
        reload_dataloaders_every_n_epochs: int = 0,
        default_root_dir: str | Path | None = None,
        enable_autolog_hparams: bool = True,
        model_registry: str | None = None,
        suggest_integrations: bool = True,
        compile: Literal["blocks", "model"] | CompilePolicy | None = None,
    ) -> None:
        own = locals()
        given = {name: own[name] for name, default in DEFAULTS.items() if not _same(own[name], default)}
        raw = {**DEFAULTS, **from_environment(given, DEFAULTS)}
        self._raw = raw
        self.config = configure(raw)
        _warn_without_effect(raw)
        _apply_determinism(raw["deterministic"], raw["benchmark"])
        layer_sync, others = _sort_layer_sync(raw["plugins"])
        self.layer_sync: LayerSync = layer_sync or TorchSyncBatchNorm()
        plan = arguments.resolve(
            arguments.RawArguments(
                accelerator=raw["accelerator"],
                strategy=raw["strategy"],
                devices=raw["devices"],
                num_nodes=raw["num_nodes"],
                precision=raw["precision"],
                plugins=others or None,
            )
        )
        self._plan = plan
        self.strategy = plan.strategy
        self.compile_policy = as_policy(raw["compile"])
        self.is_launched = False
        self.default_root_dir: str = assembly.root_of(raw["default_root_dir"])
        self.kept_version = jobs.KeptVersion(current_job())
        self.job_checkpoint: Path | None = None  # of this fit, inside a Leyden job
        self._loggers = assembly.complete_loggers(raw["logger"], self.config, self.default_root_dir, self.kept_version)
        self._callbacks = assembly.complete_callbacks(raw["callbacks"], self.config, raw)
        self.profiler = assembly.make_profiler(raw["profiler"])
        self.accumulate_grad_batches = self.config.gradients.accumulate
        self.fit_state = RunState()
        self.muted_sink = MutedSink("`self.log` does nothing in Trainer(barebones=True).")
        self._run: Run | None = None
        self._module: Any = None  # what lightning_module is where the run is in other processes
        self._status = TrainerStatus.INITIALIZING
        self._ckpt_path: Any = None  # of the user, or of the run
        self._ckpt_is_users = False
        self._shipped: tuple[dict[str, Any], ...] | None = None
        self._log_dir: tuple[str | None] | None = None

    # -- entry points --------------------------------------------------------------------------------------------

    def fit(
        self,
        model: Any = None,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train.

        Args:
            model: The module.
            train_dataloaders: A loader, a collection of loaders, or a data module.
            val_dataloaders: A loader, or several.
            datamodule: A data module instead of loaders.
            ckpt_path: Go on from this checkpoint: a path, URL, `"best"`, `"last"` or `"hpc"`.
            weights_only: `False` trusts the file and runs pickles in it.

        Raises:
            ConfigError: Module, data or checkpoint cannot be right.
        """
        module, compiler = entry.take_module("fit", model, self.lightning_module)
        source = sources.attach("fit", module, train_dataloaders=train_dataloaders, val_dataloaders=val_dataloaders, datamodule=datamodule)
        if self._raw["max_epochs"] is None and self.max_epochs == DEFAULT_EPOCHS:
            rank_zero_warn("`max_epochs` was not set. Setting it to 1000 epochs. To train without an epoch limit, set `max_epochs=-1`.")
        self._enter("fit", module)
        entry.launch(self, _Work(self, "fit", source, compiler, self._given_ckpt(ckpt_path), weights_only, has_model=True))

    def validate(
        self,
        model: Any = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Any = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run one validation epoch and return the logged values of each loader."""
        return self._evaluate("validate", model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def test(
        self,
        model: Any = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Any = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run one test epoch and return the logged values of each loader."""
        return self._evaluate("test", model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def predict(
        self,
        model: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        return_predictions: bool | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
        *,
        stream: bool = False,
    ) -> Any:
        """Predict.

        Args:
            model: The module.
            dataloaders: A loader, or several.
            datamodule: A data module instead of loaders.
            return_predictions: Whether predictions are returned; default: unless processes are spawned.
            ckpt_path: Load this checkpoint first.
            weights_only: `False` trusts the file and runs pickles in it.
            stream: Return an iterator of `Prediction` instead; nothing is kept.

        Returns:
            A list of outputs on the CPU, one list per loader if there are several; `None` without predictions.
        """
        module, compiler = entry.take_module("predict", model, self.lightning_module)
        source = sources.attach("predict", module, dataloaders=dataloaders, datamodule=datamodule)
        spawns = getattr(self.strategy, "start_method", "popen") != "popen"
        if return_predictions and spawns:
            raise ConfigError(
                "`return_predictions` should be set to `False` when using the spawn or fork accelerators. Write predictions with a "
                "BasePredictionWriter."
            )
        keeps = not spawns if return_predictions is None else bool(return_predictions)
        self._enter("predict", module)
        work = _Work(self, "predict", source, compiler, self._given_ckpt(ckpt_path), weights_only, has_model=model is not None)
        if stream:
            if spawns:
                raise ConfigError("predict(stream=True) yields in this process, but the strategy spawns others. Use strategy='ddp'.")
            if _writes_at_end(self._callbacks):
                raise ConfigError(
                    "predict(stream=True) keeps nothing for a writer with write_interval='epoch'. Use write_interval='batch'."
                )
            return entry.launch(self, work.stream)
        work.keeps_predictions = keeps
        return entry.launch(self, work)

    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        """Write a checkpoint; call it on all ranks.

        Args:
            filepath: A path or URL.
            weights_only: Whether optimizers, callbacks and position are left out.
            storage_options: For the storage.

        Raises:
            NotAttachedError: No run has had a module yet.
            StorageError: Disk, network or permission.
        """
        if self._run is None:
            raise NotAttachedError(
                "Saving a checkpoint is only possible if a model is attached to the Trainer. Did you call `Trainer.save_checkpoint()` "
                "before calling `Trainer.{fit,validate,test,predict}`?"
            )
        with self.profiler.profile("save_checkpoint"):
            content.save(self._run, filepath, weights_only=bool(weights_only), storage_options=storage_options)

    def init_module(self, empty_init: bool | None = None) -> Any:
        """Return the context in which a module is built on the device and in the dtype."""
        return self.strategy.module_init_context(empty_init=empty_init)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print on local rank 0, through the progress bar if there is one."""
        if self.local_rank == 0:
            bar = self.progress_bar_callback
            if bar is not None and self._run is not None:
                bar.print(*args, **kwargs)
            else:
                print(*args, **kwargs)  # noqa: T201 - what it is for

    def request_stop(self, reason: str = "") -> None:
        """Ask all ranks to stop after the same batch; one rank's call is enough.

        Raises:
            NotAttachedError: Nothing has run yet, so there is nothing to stop.
        """
        self.run.request("stop", reason)

    def _evaluate(
        self, fn: str, model: Any, dataloaders: Any, ckpt_path: Any, verbose: bool, datamodule: Any, weights_only: bool | None
    ) -> list[dict[str, float]]:
        module, compiler = entry.take_module(fn, model, self.lightning_module)
        source = sources.attach(fn, module, dataloaders=dataloaders, datamodule=datamodule)
        if self._run is not None and self._run.source is not None:
            source = source.or_of(self._run.source)
        self._enter(fn, module)
        work = _Work(self, fn, source, compiler, self._given_ckpt(ckpt_path), weights_only, has_model=model is not None)
        found: list[dict[str, float]] = entry.launch(self, work)
        if verbose and self.is_global_zero and not self.config.defaults.barebones:
            results.show(fn, found, self.print)
        return found

    def _enter(self, fn: str, module: Any) -> None:
        self._status = TrainerStatus.RUNNING
        self._shipped = None
        self.job_checkpoint = None
        if fn == "fit" and not self.fast_dev_run and (job := current_job()) is not None:
            self.job_checkpoint = jobs.next_checkpoint(job)
        module.trainer = self
        self._module = module

    def _given_ckpt(self, ckpt_path: Any) -> Any:
        return self._ckpt_path if ckpt_path is None and self._ckpt_is_users else ckpt_path

    # -- what entry points write ---------------------------------------------------------------------------------

    def note_launched(self) -> None:
        """Remember that this process has joined the others."""
        self.is_launched = True

    def note_status(self, status: TrainerStatus) -> None:
        """Remember how the entry point went."""
        self._status = status

    def begin_run(self, run: Run) -> None:
        """Take a run as the current one."""
        before, self._run = self._run, run
        if before is not None and run.state.fn != "fit":
            run.fitted = before if before.state.fn == "fit" else before.fitted
        self._log_dir = None

    def for_trial(self, *, config: TrainerConfig, callbacks: Iterable[Any], state: RunState) -> "Trainer":
        """Return a trainer beside this one for a trial: its own limits, callbacks and position, loggers that keep nothing."""
        other = copy.copy(self)
        other.config, other.fit_state, other._shipped = config, state, None
        other._callbacks = CallbackList(callbacks)
        other._loggers = [DummyLogger()] if self._loggers else []
        return other

    def note_checkpoint(self, path: str | None) -> None:
        """Remember the checkpoint that the run loads."""
        self._ckpt_path, self._ckpt_is_users = path, False

    def take_shipped_metrics(self, metrics: tuple[dict[str, Any], ...]) -> None:
        """Take over metrics of a run in another process."""
        self._shipped = metrics

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}

    # -- the run -------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Any:
        """The current run: `clock`, `validation_is_due`, `request`, `take`, `optimizers`.

        Raises:
            NotAttachedError: Nothing has run yet.
        """
        if self._run is None:
            raise NotAttachedError("The trainer has not run yet; call fit, validate, test or predict first.")
        return self._run

    @property
    def should_stop(self) -> bool:
        """Whether training ends at the next occasion."""
        return self.fit_state.should_stop

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        self.fit_state.should_stop = bool(value)

    @property
    def is_last_batch(self) -> bool:
        """Whether the batch in progress is its epoch's last."""
        return self.fit_state.last_batch

    # -- module, data, optimizers --------------------------------------------------------------------------------

    @property
    def lightning_module(self) -> Any:
        """The user's module."""
        return self._run.module if self._run is not None else self._module

    @property
    def model(self) -> Any:
        """The module as the strategy wrapped it; on one device, the module itself."""
        if self._run is None:
            return self._module
        return self._run.model.__dict__["_forward_module"] if self._run.model is not None else self._run.module

    @property
    def datamodule(self) -> Any:
        """The data module, if one was given."""
        return self._run.datamodule if self._run is not None else None

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers, as `configure_optimizers` made them."""
        return [item.optimizer for item in self._run.optimizers] if self._run is not None else []

    @optimizers.setter
    def optimizers(self, new: Iterable[Any]) -> None:
        run = self.run
        run.optimizers = [entry.wrap_optimizer(run, optimizer) for optimizer in new]
        run.callbacks.version += 1  # steps close over the optimizer: they are made again

    @property
    def lr_scheduler_configs(self) -> list[Any]:
        """The schedulers and when they step."""
        return self._run.schedulers if self._run is not None else []

    @property
    def enable_validation(self) -> bool:
        """Whether validation runs in fit: there are a step, loaders, and a limit above 0."""
        run = self._run
        if run is None:
            return False
        return run.plan.overrides("validation_step") and run.source.has("val") and self.config.cadence.limits["val"] > 0

    @property
    def estimated_stepping_batches(self) -> float:
        """The number of optimizer steps that fit will take, for schedulers; infinite where there is no limit."""
        return entry.estimated_steps(self, self._run)

    # -- metrics and loggers -------------------------------------------------------------------------------------

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """Everything logged, as tensors: what callbacks monitor."""
        return self._metrics(0)

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """What went to loggers."""
        return self._metrics(1)

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """What the progress bar shows."""
        return self._metrics(2)

    def _metrics(self, index: int) -> dict[str, Any]:
        if self._shipped is not None:
            return self._shipped[index]
        if self._run is None:
            return {}
        store = self._run.store
        if index == 0:
            return store.callback_metrics
        return store.logged_metrics if index == 1 else store.progress_bar_metrics

    @property
    def logger(self) -> Any:
        """The first logger, or `None`."""
        return self._loggers[0] if self._loggers else None

    @logger.setter
    def logger(self, logger: Any) -> None:
        self.loggers = [logger] if logger else []

    @property
    def loggers(self) -> list[Any]:
        """All loggers."""
        return self._loggers

    @loggers.setter
    def loggers(self, loggers: list[Any] | None) -> None:
        self._loggers = list(loggers or [])
        if self._run is not None:
            self._run.rows.loggers = self._loggers

    @property
    def log_dir(self) -> str | None:
        """The directory of this run: the first logger's, else the root directory; the same on all ranks."""
        if self._log_dir is None:
            own = assembly.log_dir_of(self._loggers, self.default_root_dir)
            if not self.is_launched and self.world_size > 1:
                return own
            self._log_dir = (self.strategy.broadcast(own) if self.world_size > 1 else own,)
        return self._log_dir[0]

    @property
    def logs_hparams(self) -> bool:
        """Whether hyper-parameters are logged."""
        return self.config.defaults.enable_autolog_hparams and bool(self._loggers)

    # -- callbacks -----------------------------------------------------------------------------------------------

    @property
    def callbacks(self) -> CallbackList:
        """The callbacks, in the order they are called; changes count from the next batch on."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Iterable[Any]) -> None:
        version = self._callbacks.version + 1
        self._callbacks = CallbackList(callbacks)
        self._callbacks.version = version
        if self._run is not None:
            self._run.callbacks = self._callbacks

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint this run was loaded from, or that the next one will be."""
        return self._ckpt_path

    @ckpt_path.setter
    def ckpt_path(self, path: Any) -> None:
        self._ckpt_path, self._ckpt_is_users = path, path is not None


class _Work:
    """What every rank does for an entry point; it can be sent to a started process."""

    def __init__(
        self, trainer: Trainer, fn: str, source: Any, compiler: Any, ckpt_path: Any, weights_only: Any, *, has_model: bool
    ) -> None:
        self.trainer, self.fn, self.source, self.compiler = trainer, fn, source, compiler
        self.ckpt_path, self.weights_only, self.has_model = ckpt_path, weights_only, has_model
        self.keeps_predictions = False

    def __call__(self) -> Any:
        run, arguments_ = self._begin()
        try:
            if self.fn == "predict":
                return self._predict(run, arguments_)
            loop.execute(run, **arguments_)
            return run.results if self.fn != "fit" else None
        finally:
            entry.finish(self.trainer, run)

    def stream(self) -> "Iterator[Prediction]":
        """Yield predictions as they come."""
        run, arguments_ = self._begin()
        try:
            yield from loop.execute_predict(run, **arguments_)
        finally:
            entry.finish(self.trainer, run)

    def _begin(self) -> tuple[Run, dict[str, Any]]:
        trainer = self.trainer
        trainer.begin_run(run := entry.make_run(trainer, self.fn, self.source, self.compiler))
        path = entry.choose_checkpoint(trainer, self.fn, self.ckpt_path, has_model=self.has_model)
        trainer.note_checkpoint(path)
        return run, {"ckpt_path": path, "weights_only": self.weights_only}

    def _predict(self, run: Run, arguments_: dict[str, Any]) -> Any:
        kept: list[Prediction] = run.predictions
        is_kept = self.keeps_predictions or _writes_at_end(run.callbacks)
        for prediction in loop.execute_predict(run, **arguments_):
            if is_kept:
                kept.append(prediction)  # noqa: PERF401 - callbacks read it while it grows
        return predicting.nested(kept, len(run.val.num_batches)) if self.keeps_predictions else None


def _writes_at_end(callbacks: Iterable[Any]) -> bool:
    return any(isinstance(callback, BasePredictionWriter) and callback.interval.on_epoch for callback in callbacks)


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and isinstance(value, (int, float, str, bool)) and value == default)


def _warn_without_effect(raw: dict[str, Any]) -> None:
    for name in ("model_registry", "suggest_integrations"):
        if not _same(raw[name], DEFAULTS[name]):
            rank_zero_warn(f"Trainer({name}={raw[name]!r}) has no effect here.")


def _apply_determinism(deterministic: Any, benchmark: bool | None) -> None:
    if deterministic is not None and not (isinstance(deterministic, bool) or deterministic == "warn"):
        raise ConfigTypeError(f'deterministic={deterministic!r}: accepted are True, False, "warn" and None.')
    if deterministic:
        torch.use_deterministic_algorithms(mode=True, warn_only=deterministic == "warn")
        settings.environment().setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if benchmark is None:
            benchmark = False
    elif deterministic is False:
        torch.use_deterministic_algorithms(mode=False)
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark


def _sort_layer_sync(plugins: Any) -> tuple[LayerSync | None, list[Any]]:
    given = [] if plugins is None else list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
    found = [plugin for plugin in given if isinstance(plugin, LayerSync)]
    if len(found) > 1:
        raise ConfigError(f"plugins has two of LayerSync: {found[0]!r} and {found[1]!r}. Pass one of each kind at most.")
    return (found[0] if found else None), [plugin for plugin in given if not isinstance(plugin, LayerSync)]
