"""The counters under their documented names: read-only, computed from the run's position. Our own code never reads them."""

from types import SimpleNamespace
from typing import Any

from leyden.trainer.checkpoint import counters


def _progress(total: int, current: int) -> Any:
    def side(number: int) -> SimpleNamespace:
        return SimpleNamespace(ready=number, started=number, processed=number, completed=number)

    return SimpleNamespace(total=side(total), current=side(current))


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
        done = position.batch if position is not None else 0
        return _progress(done, done)

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
        return nested(run.predictions, len(run.val.num_batches)) if run is not None and run.val is not None else []

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
        clock = self._trainer.fit_state.clock
        progress = _progress(clock.batches, clock.batch)
        progress.is_last_batch = self._trainer.is_last_batch
        return progress

    @property
    def automatic_optimization(self) -> Any:
        """Steps of the optimizer."""
        steps = _progress(self._trainer.global_step, self._trainer.global_step)
        return SimpleNamespace(
            optim_progress=SimpleNamespace(optimizer=SimpleNamespace(step=steps), optimizer_steps=self._trainer.global_step)
        )

    @property
    def manual_optimization(self) -> Any:
        """Steps of optimizers in manual mode."""
        return SimpleNamespace(optim_step_progress=_progress(self._trainer.global_step, self._trainer.global_step))

    @property
    def val_loop(self) -> EvaluationLoopView:
        """The counters of validation."""
        return EvaluationLoopView(self._trainer, "validate")

    @property
    def total_batch_idx(self) -> int:
        """The number of the batch in progress, over all epochs."""
        return max(self._trainer.fit_state.clock.batches - 1, 0)

    @property
    def batch_idx(self) -> int:
        """The number of the batch in progress, in its epoch."""
        return max(self._trainer.fit_state.clock.batch - 1, 0)

    @property
    def global_step(self) -> int:
        """Training batches in which an optimizer stepped."""
        return self._trainer.global_step

    @property
    def max_steps(self) -> int:
        """The most optimizer steps."""
        return self._trainer.max_steps


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
        epoch = self._trainer.current_epoch
        return _progress(epoch, epoch)

    @property
    def max_epochs(self) -> int | None:
        """The most epochs."""
        return self._trainer.max_epochs

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
        """Whether a limit is reached."""
        limits, clock = self._trainer.config.limits, self._trainer.fit_state.clock
        return (limits.max_epochs != -1 and clock.epoch >= limits.max_epochs) or (limits.max_steps != -1 and clock.step >= limits.max_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters in the documented tree."""
        module = self._trainer.lightning_module
        return counters.tree(self._trainer.fit_state, automatic=module is None or module.automatic_optimization)["fit_loop"]
