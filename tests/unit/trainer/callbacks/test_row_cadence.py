from typing import Any

import pytest

from leyden.trainer.callbacks.row_cadence import row_is_due
from tests.support.module_trainer import ModuleTrainer


@pytest.mark.parametrize(
    ("options", "log_step", "is_due"),
    [
        ({"log_every_n_steps": 3}, 1, False),
        ({"log_every_n_steps": 3}, 2, True),
        ({"log_every_n_steps": 0, "should_stop": True}, 2, False),
        ({"log_every_n_steps": 50, "should_stop": True}, 2, True),
        ({"log_every_n_steps": 50, "fast_dev_run": 1}, 0, True),
    ],
)
def test_rows_are_due_at_the_cadence_at_a_stop_and_in_dev_runs(options: dict[str, Any], log_step: int, is_due: bool) -> None:
    trainer = ModuleTrainer(**options)
    trainer.run.clock.log_step = log_step
    assert row_is_due(trainer) is is_due
