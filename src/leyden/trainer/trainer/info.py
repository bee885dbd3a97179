"""`TrainerInfo`: what a trainer answers, as properties under the documented names. No behaviour lives here."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leyden.core.lazy import Later
from leyden.trainer.core.callback import Checkpoint
from leyden.trainer.data.limits import check_limit
from leyden.trainer.engine.plan import CallbackList
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.state import RunState
from leyden.trainer.trainer.config import TrainerConfig
from leyden.trainer.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus

if TYPE_CHECKING:
    from leyden.trainer.loops import views
else:
    views = Later("leyden.trainer.loops.views")

_STAGES = {
    "train": RunningStage.TRAINING,
    "sanity": RunningStage.SANITY_CHECKING,
    "validate": RunningStage.VALIDATING,
    "test": RunningStage.TESTING,
    "predict": RunningStage.PREDICTING,
}


class TrainerInfo:  # noqa: SIZE002, SIZE003 - one property per documented name
    """The properties of `Trainer`."""

    config: TrainerConfig
    strategy: Any
    fit_state: RunState
    _plan: Any
    _raw: dict[str, Any]
    _run: Run | None
    _status: TrainerStatus
    _callbacks: CallbackList

    @property
    def state(self) -> TrainerState:
        """Entry point, stage and status."""
        run = self._run
        if run is None:
            return TrainerState(self._status)
        return TrainerState(self._status, TrainerFn(run.state.fn), _STAGES[run.stage] if self._status is TrainerStatus.RUNNING else None)

    @property
    def global_step(self) -> int:
        """Training batches in which an optimizer stepped."""
        return self.fit_state.clock.step

    @property
    def current_epoch(self) -> int:
        """Finished epochs: the number of the one that runs."""
        return self.fit_state.clock.epoch

    @property
    def max_epochs(self) -> int | None:
        """The most epochs; -1 for no limit."""
        return self.config.limits.max_epochs

    @property
    def min_epochs(self) -> int | None:
        """The fewest epochs."""
        return self.config.limits.min_epochs

    @property
    def max_steps(self) -> int:
        """The most optimizer steps; -1 for no limit."""
        return self.config.limits.max_steps

    @property
    def min_steps(self) -> int | None:
        """The fewest optimizer steps."""
        return self.config.limits.min_steps

    # -- where this process stands -------------------------------------------------------------------------------

    @property
    def accelerator(self) -> Any:
        """The kind of device."""
        return self._plan.accelerator

    @property
    def global_rank(self) -> int:
        """This process's rank over all nodes."""
        return self.strategy.global_rank

    @property
    def local_rank(self) -> int:
        """This process's rank on its node."""
        return self.strategy.local_rank

    @property
    def node_rank(self) -> int:
        """The number of this node."""
        return self.strategy.node_rank

    @property
    def world_size(self) -> int:
        """The number of ranks over all nodes."""
        return self.strategy.world_size

    @property
    def num_nodes(self) -> int:
        """The number of machines."""
        return self._plan.num_nodes

    @property
    def num_devices(self) -> int:
        """The number of devices of this node."""
        return len(self._plan.devices)

    @property
    def device_ids(self) -> list[int]:
        """The devices of this node, by number."""
        return [index if device.index is None else device.index for index, device in enumerate(self._plan.devices)]

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0."""
        return self.strategy.is_global_zero

    @property
    def precision(self) -> str:
        """The precision's name."""
        return self.strategy.precision.precision

    @property
    def precision_plugin(self) -> Any:
        """The precision."""
        return self.strategy.precision

    @property
    def scaler(self) -> Any:
        """The gradient scaler, under float16."""
        return getattr(self.strategy.precision, "scaler", None)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int] | None:
        """`num_replicas` and `rank` for samplers; `None` on one device."""
        return self.strategy.distributed_sampler_kwargs if self.world_size > 1 else None

    @property
    def runs_under_slurm(self) -> bool:
        """Whether Slurm started this process."""
        return type(self._plan.environment).__name__ == "SLURMEnvironment"

    # -- loaders ---------------------------------------------------------------------------------------------------

    @property
    def train_dataloader(self) -> Any:
        """The training loaders, as they were given."""
        return self._loaders("train")

    @property
    def val_dataloaders(self) -> Any:
        """The validation loaders, as they were given."""
        return self._loaders("val")

    @property
    def test_dataloaders(self) -> Any:
        """The test loaders, as they were given."""
        return self._loaders("test")

    @property
    def predict_dataloaders(self) -> Any:
        """The prediction loaders, as they were given."""
        return self._loaders("predict")

    def _loaders(self, stage: str) -> Any:
        combined = self._run.loaders.get(stage) if self._run is not None else None
        return combined.iterables if combined is not None else None

    @property
    def num_training_batches(self) -> float:
        """The training batches of an epoch; infinite where nobody knows, and before the loaders are there."""
        feed = self._run.train if self._run is not None else None
        return feed.num_batches[0] if feed is not None else math.inf

    @property
    def num_val_batches(self) -> list[float]:
        """The validation batches of each loader."""
        return self._num_batches(("validate", "fit"))

    @property
    def num_test_batches(self) -> list[float]:
        """The test batches of each loader."""
        return self._num_batches(("test",))

    @property
    def num_predict_batches(self) -> list[float]:
        """The prediction batches of each loader."""
        return self._num_batches(("predict",))

    @property
    def num_sanity_val_batches(self) -> list[float]:
        """The batches of the sanity check, of each loader."""
        most = self.config.cadence.num_sanity_val_steps
        return [min(count, most) for count in self._num_batches(("fit",))]

    def _num_batches(self, functions: tuple[str, ...]) -> list[float]:
        run = self._run
        if run is None or run.state.fn not in functions or run.val is None:
            return []
        return list(run.val.num_batches)

    @property
    def num_sanity_val_steps(self) -> float:
        """The batches of the sanity check; infinite: all."""
        return self.config.cadence.num_sanity_val_steps

    # -- callbacks -------------------------------------------------------------------------------------------------

    @property
    def checkpoint_callback(self) -> Any:
        """The first checkpoint callback."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def checkpoint_callbacks(self) -> list[Any]:
        """All checkpoint callbacks."""
        return [callback for callback in self._callbacks if isinstance(callback, Checkpoint)]

    @property
    def early_stopping_callback(self) -> Any:
        """The first early-stopping callback."""
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[Any]:
        """All early-stopping callbacks."""
        return [callback for callback in self._callbacks if _is_a(callback, "EarlyStopping")]

    @property
    def progress_bar_callback(self) -> Any:
        """The progress bar."""
        return next((callback for callback in self._callbacks if _is_a(callback, "ProgressBar")), None)

    # -- stage ---------------------------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether training runs."""
        return self.state.stage is RunningStage.TRAINING

    @property
    def validating(self) -> bool:
        """Whether validation runs."""
        return self.state.stage is RunningStage.VALIDATING

    @property
    def testing(self) -> bool:
        """Whether testing runs."""
        return self.state.stage is RunningStage.TESTING

    @property
    def predicting(self) -> bool:
        """Whether prediction runs."""
        return self.state.stage is RunningStage.PREDICTING

    @property
    def sanity_checking(self) -> bool:
        """Whether the sanity check runs."""
        return self.state.stage is RunningStage.SANITY_CHECKING

    @property
    def evaluating(self) -> bool:
        """Whether validation or testing runs."""
        return self.state.stage is not None and self.state.stage.evaluating

    @property
    def interrupted(self) -> bool:
        """Whether an exception ended the latest entry point."""
        return self._status is TrainerStatus.INTERRUPTED

    @property
    def received_sigterm(self) -> bool:
        """Whether SIGTERM ended the run."""
        return self._run is not None and self._run.received_sigterm

    # -- arguments as attributes ---------------------------------------------------------------------------------

    def _limit(self, stage: str, value: float) -> None:
        cadence = self.config.cadence
        limits = {**cadence.limits, stage: check_limit(f"limit_{stage}_batches", value)}
        self.config = replace(self.config, cadence=replace(cadence, limits=limits))

    @property
    def limit_train_batches(self) -> float:
        """As given, or 1.0; another one holds from the next entry point on."""
        return self.config.cadence.limits["train"]

    @limit_train_batches.setter
    def limit_train_batches(self, value: float) -> None:
        self._limit("train", value)

    @property
    def limit_val_batches(self) -> float:
        """As given, or 1.0; another one holds from the next entry point on."""
        return self.config.cadence.limits["val"]

    @limit_val_batches.setter
    def limit_val_batches(self, value: float) -> None:
        self._limit("val", value)

    @property
    def limit_test_batches(self) -> float:
        """As given, or 1.0; another one holds from the next entry point on."""
        return self.config.cadence.limits["test"]

    @limit_test_batches.setter
    def limit_test_batches(self, value: float) -> None:
        self._limit("test", value)

    @property
    def limit_predict_batches(self) -> float:
        """As given, or 1.0; another one holds from the next entry point on."""
        return self.config.cadence.limits["predict"]

    @limit_predict_batches.setter
    def limit_predict_batches(self, value: float) -> None:
        self._limit("predict", value)

    @property
    def val_check_interval(self) -> Any:
        """As given, or 1.0."""
        given = self._raw["val_check_interval"]
        return 1.0 if given is None else given

    @property
    def val_check_batch(self) -> float | None:
        """After how many batches validation comes; infinite: at the epoch's end."""
        return self._run.validation_batches if self._run is not None else None

    @property
    def check_val_every_n_epoch(self) -> int | None:
        """As given."""
        return self.config.cadence.check_val_every_n_epoch

    @property
    def log_every_n_steps(self) -> int:
        """As given, or 50."""
        return self.config.cadence.log_every_n_steps

    @property
    def overfit_batches(self) -> float:
        """As given."""
        return self.config.cadence.overfit_batches

    @property
    def reload_dataloaders_every_n_epochs(self) -> int:
        """As given."""
        return self.config.cadence.reload_dataloaders_every_n_epochs

    @property
    def gradient_clip_val(self) -> Any:
        """As given."""
        return self.config.gradients.value

    @property
    def gradient_clip_algorithm(self) -> str | None:
        """As given."""
        return self.config.gradients.algorithm

    @property
    def fast_dev_run(self) -> int | bool:
        """The number of batches of a trial run; `False` for none."""
        return self.config.fast_dev_run or False

    @property
    def barebones(self) -> bool:
        """As given."""
        return self.config.defaults.barebones

    @property
    def max_time(self) -> Any:
        """As given."""
        return self.config.limits.max_time

    # -- views ---------------------------------------------------------------------------------------------------

    @property
    def fit_loop(self) -> "views.FitLoopView":
        """The counters of fit, under their documented names."""
        return views.FitLoopView(self)

    @property
    def validate_loop(self) -> "views.EvaluationLoopView":
        """The counters of validate."""
        return views.EvaluationLoopView(self, "validate")

    @property
    def test_loop(self) -> "views.EvaluationLoopView":
        """The counters of test."""
        return views.EvaluationLoopView(self, "test")

    @property
    def predict_loop(self) -> "views.PredictionLoopView":
        """The counters and outputs of predict."""
        return views.PredictionLoopView(self)


def _is_a(callback: Any, name: str) -> bool:
    return any(parent.__name__ == name for parent in type(callback).__mro__)
