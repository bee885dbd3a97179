"""The counters under their documented names, computed from the run's position; limits can be set. Our own code never reads them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from leyden.trainer.checkpoint import counters
from leyden.trainer.engine.state import EvalPhase, Phase

_IN_BATCH = (Phase.MID_BATCH, Phase.BATCH_END, Phase.VALIDATION, Phase.AFTER_VALIDATION)
_IN_EPOCH = (*_IN_BATCH, Phase.BATCH, Phase.EPOCH_END)


def _progress(total: int, current: int, *, begun: bool = False, processed: bool = False, completed: bool = False) -> Any:
    """Return the counters for numbers of things that are over, and how far the one in progress is."""

    def side(number: int) -> SimpleNamespace:
        return SimpleNamespace(ready=number + begun, started=number + begun, processed=number + processed, completed=number + completed)

    return SimpleNamespace(total=side(total), current=side(current))


def _limit(trainer: Any, **changed: int | None) -> None:
    """Change when fit ends: from the next epoch on, if it runs."""
    trainer.config = replace(trainer.config, limits=replace(trainer.config.limits, **changed))
    if trainer._run is not None:
        trainer._run.config = trainer.config


class EvaluationLoopView:
    """What `trainer.validate_loop` and `test_loop` show.

    Args:
        trainer: The trainer.
        stage: The stage.
    """

    def __init__(self, trainer: Any, stage: str) -> None:
        self._trainer, self._stage = trainer, stage

    @property
    def batch_progress(self) -> Any:
        """Batches of the evaluation."""
        position = self._position
        if position is None:
            return _progress(0, 0)
        begun = self._trainer._run.batch is not None and position.phase in (EvalPhase.BATCH, EvalPhase.BATCH_END)
        return _progress(position.batch, position.batch, begun=begun, processed=begun and position.phase is EvalPhase.BATCH_END)

    @property
    def max_batches(self) -> list[float]:
        """The batches of each loader."""
        names = {"validate": "num_val_batches", "test": "num_test_batches"}
        return getattr(self._trainer, names[self._stage])

    @property
    def num_dataloaders(self) -> int:
        """How many loaders there are."""
        return len(self.max_batches)

    @property
    def _position(self) -> Any:
        run = self._trainer._run
        return run.state.eval if run is not None else None

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"state_dict": {}, "batch_progress": vars(self.batch_progress)}


class PredictionLoopView:
    """What `trainer.predict_loop` shows.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    @property
    def predictions(self) -> list[Any]:
        """The outputs kept so far: a list, or one per loader."""
        from leyden.trainer.loops.predict import nested

        run = self._trainer._run
        return (
            nested(run.predictions, len(run.val.num_batches))
            if run is not None and run.state.fn == "predict" and run.val is not None
            else []
        )

    @property
    def epoch_batch_indices(self) -> list[list[Any]]:
        """Loader → the dataset's indices of each batch."""
        run = self._trainer._run
        return [run.indices[number] for number in sorted(run.indices)] if run is not None else []

    @property
    def current_batch_indices(self) -> Any:
        """The dataset's indices of the batch in progress."""
        run = self._trainer._run
        return run.val.batch_indices if run is not None and run.val is not None else None

    @property
    def batch_progress(self) -> Any:
        """Batches that were predicted."""
        run = self._trainer._run
        done = sum(map(len, run.indices.values())) if run is not None else 0
        return _progress(done, done)

    @property
    def max_batches(self) -> list[float]:
        """The batches of each loader."""
        return self._trainer.num_predict_batches

    @property
    def num_dataloaders(self) -> int:
        """How many loaders there are."""
        return len(self.max_batches)


class EpochLoopView:
    """What `trainer.fit_loop.epoch_loop` shows.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    @property
    def batch_progress(self) -> Any:
        """Training batches: of all epochs, and of this one."""
        state = self._trainer.fit_state
        clock, phase = state.clock, state.phase
        progress = _progress(
            clock.batches,
            clock.batch or (0 if phase in _IN_EPOCH else state.finished_batches),
            begun=phase in _IN_BATCH,
            processed=phase in _IN_BATCH and phase is not Phase.MID_BATCH,
            completed=phase in (Phase.VALIDATION, Phase.AFTER_VALIDATION),
        )
        progress.is_last_batch = self._trainer.is_last_batch
        return progress

    @property
    def automatic_optimization(self) -> Any:
        """Steps of the optimizer, in automatic mode."""
        steps = self._steps(automatic=True)
        optimizer = SimpleNamespace(step=_progress(steps, steps))
        return SimpleNamespace(optim_progress=SimpleNamespace(optimizer=optimizer, optimizer_steps=steps))

    @property
    def manual_optimization(self) -> Any:
        """Steps of optimizers in manual mode."""
        steps = self._steps(automatic=False)
        return SimpleNamespace(optim_step_progress=_progress(steps, steps))

    def _steps(self, *, automatic: bool) -> int:
        module = self._trainer.lightning_module
        return self._trainer.global_step if (module is None or module.automatic_optimization) is automatic else 0

    @property
    def val_loop(self) -> EvaluationLoopView:
        """The counters of validation."""
        return EvaluationLoopView(self._trainer, "validate")

    @property
    def total_batch_idx(self) -> int:
        """The number of the batch in progress, over all epochs; -1 before the first."""
        return self.batch_progress.total.ready - 1

    @property
    def batch_idx(self) -> int:
        """The number of the batch in progress, in its epoch; -1 before the first."""
        return self.batch_progress.current.ready - 1

    @property
    def _batches_that_stepped(self) -> int:
        """The x of training rows: loggers and callbacks of others read it under this name."""
        return self._trainer.fit_state.clock.log_step

    @property
    def global_step(self) -> int:
        """Training batches in which an optimizer stepped."""
        return self._trainer.global_step

    @property
    def max_steps(self) -> int:
        """The most optimizer steps; can be set."""
        return self._trainer.max_steps

    @max_steps.setter
    def max_steps(self, value: int) -> None:
        _limit(self._trainer, max_steps=value)

    @property
    def min_steps(self) -> int | None:
        """The fewest optimizer steps; can be set."""
        return self._trainer.min_steps

    @min_steps.setter
    def min_steps(self, value: int | None) -> None:
        _limit(self._trainer, min_steps=value)


class FitLoopView:
    """What `trainer.fit_loop` shows.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.epoch_loop = EpochLoopView(trainer)

    @property
    def epoch_progress(self) -> Any:
        """Epochs."""
        epoch, state = self._trainer.current_epoch, self._trainer.fit_state
        starts = state.phase is Phase.EPOCH_START and bool(state.calls)
        return _progress(epoch, epoch, begun=starts or state.phase in _IN_EPOCH, processed=state.phase is Phase.EPOCH_END)

    @property
    def max_epochs(self) -> int | None:
        """The most epochs; can be set, to train longer in a next `fit`."""
        return self._trainer.max_epochs

    @max_epochs.setter
    def max_epochs(self, value: int) -> None:
        _limit(self._trainer, max_epochs=value)

    @property
    def min_epochs(self) -> int | None:
        """The fewest epochs; can be set."""
        return self._trainer.min_epochs

    @min_epochs.setter
    def min_epochs(self, value: int | None) -> None:
        _limit(self._trainer, min_epochs=value)

    @property
    def max_batches(self) -> float:
        """The batches of an epoch; infinite where nobody knows."""
        return self._trainer.num_training_batches

    @property
    def total_batch_idx(self) -> int:
        """The number of the batch in progress, over all epochs."""
        return self.epoch_loop.total_batch_idx

    @property
    def batch_idx(self) -> int:
        """The number of the batch in progress, in its epoch."""
        return self.epoch_loop.batch_idx

    @property
    def done(self) -> bool:
        """Whether a limit is reached, or a stop was asked for that need not wait."""
        limits, clock = self._trainer.config.limits, self._trainer.fit_state.clock
        if limits.max_epochs != -1 and clock.epoch >= limits.max_epochs:
            return True
        if limits.max_steps != -1 and clock.step >= limits.max_steps:
            return True
        may_stop = clock.epoch >= (limits.min_epochs or 0) and clock.step >= (limits.min_steps or 0)
        return self._trainer.should_stop and may_stop

    def state_dict(self) -> dict[str, Any]:
        """Return the counters in the documented tree."""
        module = self._trainer.lightning_module
        return counters.tree(self._trainer.fit_state, automatic=module is None or module.automatic_optimization)["fit_loop"]
