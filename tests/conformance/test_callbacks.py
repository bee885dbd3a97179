"""The callbacks of trainer keep the promises of their kit."""

from pathlib import Path
from typing import Any

import pytest

from leyden.trainer.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GarbageCollection,
    GradientAccumulationScheduler,
    HangWatchdog,
    LambdaCallback,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    NonFiniteGuard,
    OnExceptionCheckpoint,
    SpikeDetection,
    ThroughputMonitor,
    Timer,
    WeightAveraging,
)
from leyden.trainer.core.callback import Callback
from tests.conformance.callback_suite import CallbackSuite


class TestBackboneFinetuning(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return BackboneFinetuning(unfreeze_backbone_at_epoch=1)


class TestPredictionWriter(CallbackSuite):
    def make(self, root: Path) -> Callback:
        class Counting(BasePredictionWriter):
            def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *rest: Any) -> None:
                assert len(prediction) == 4

            def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
                assert len(predictions) == 6

        return Counting("batch_and_epoch")


class TestDeviceStatsMonitor(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return DeviceStatsMonitor()


class TestEarlyStopping(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return EarlyStopping("val_loss", patience=10)


class TestEMA(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return EMAWeightAveraging(decay=0.9)


class TestWeightAveraging(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return WeightAveraging()


class TestGarbageCollection(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return GarbageCollection(every_n_steps=2)


class TestGradientAccumulationScheduler(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return GradientAccumulationScheduler({0: 1, 5: 2})


class TestHangWatchdog(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return HangWatchdog(timeout_seconds=120)


class TestLambda(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return LambdaCallback(on_train_batch_end=lambda *args: None)


@pytest.mark.filterwarnings("ignore:Skipping learning rate finder since `fast_dev_run` is enabled")
class TestLearningRateFinder(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return LearningRateFinder(update_attr=False, num_training_steps=3)


class TestLearningRateMonitor(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return LearningRateMonitor("step")


class TestModelCheckpoint(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return ModelCheckpoint(root / "files", monitor="val_loss", save_last=True)


class TestModelSummary(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return ModelSummary(max_depth=2)


class TestNonFiniteGuard(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return NonFiniteGuard()


class TestOnExceptionCheckpoint(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return OnExceptionCheckpoint(root / "crash")


class TestSpikeDetection(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return SpikeDetection(rtol=50.0, exclude_batches_path=root)


class TestThroughputMonitor(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return ThroughputMonitor(batch_size_fn=lambda batch: len(batch[0]), window_size=3)


class TestTimer(CallbackSuite):
    def make(self, root: Path) -> Callback:
        return Timer(duration="01:00:00:00")

    def kept(self, state: Any) -> Any:
        return state["time_elapsed"]["train"]  # evaluations begin anew
