from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks import BasePredictionWriter
from leyden.trainer.callbacks.prediction_writer import WriteInterval
from tests.support.module_trainer import FakeModule, FakePredictLoop, ModuleTrainer


class Recorder(BasePredictionWriter):
    def __init__(self, write_interval: Any) -> None:
        super().__init__(write_interval)
        self.written: list[Any] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, *where: Any) -> None:
        self.written.append((prediction, batch_indices, *where))

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
        self.written.append((predictions, batch_indices))


BATCH = ("p", [4, 5], "batch", 2, 1)
EPOCH = (["p", "q"], [[[4, 5], [6]]])


@pytest.mark.parametrize(("interval", "written"), [("batch", [BATCH]), ("epoch", [EPOCH]), ("batch_and_epoch", [BATCH, EPOCH])])
def test_predictions_and_their_indices_are_written_when_asked(interval: str, written: list[Any]) -> None:
    writer = Recorder(interval)
    trainer = ModuleTrainer(predict_loop=FakePredictLoop(EPOCH[0], EPOCH[1], [4, 5]))
    writer.on_predict_batch_end(trainer, FakeModule(), "p", "batch", 2, 1)
    writer.on_predict_epoch_end(trainer, FakeModule())
    assert writer.written == written


def test_the_interval_of_the_enum_is_accepted() -> None:
    assert Recorder(WriteInterval.EPOCH).interval.on_epoch


def test_another_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`write_interval`='epochs' should be one of .* Did you mean 'epoch'"):
        Recorder("epochs")
