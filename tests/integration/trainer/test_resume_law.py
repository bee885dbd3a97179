"""The law of resuming: cut any training in any hook, and its trace after the cut is the rest of the unbroken one's."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.resumed_fit import Attempt, Net, PlateauOfSteps, Saver, plain, prove, scramble

HOOKS = (
    "on_train_start", "on_train_epoch_start", "on_train_batch_end", "on_validation_start", "on_validation_epoch_start",
    "on_validation_batch_end", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_end", "on_train_end", "lr_scheduler_step",
)  # fmt: skip


@st.composite
def trainings(draw: st.DrawFn) -> dict[str, Any]:
    """Return options of a small training."""
    batches = draw(st.integers(1, 5))
    every = draw(st.sampled_from([1, 2, None]))
    interval = draw(st.integers(1, batches if every else 6)) if every is None or draw(st.booleans()) else draw(st.sampled_from([0.5, 1.0]))
    if isinstance(interval, float) and batches * interval < 1:
        interval = 1.0
    return {
        "loaders": lambda: plain(length=2 * batches),
        "module": draw(st.sampled_from([Net, PlateauOfSteps])),
        "max_epochs": draw(st.integers(1, 3)),
        "accumulate_grad_batches": draw(st.integers(1, 3)),
        "check_val_every_n_epoch": every,
        "val_check_interval": interval,
        "log_every_n_steps": draw(st.integers(1, 3)),
        "num_sanity_val_steps": draw(st.integers(0, 1)),
        "callbacks": list,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*in eval mode at the start",
    "ignore:The number of training batches",
    "ignore:ModelCheckpoint",
    "ignore:.*ReduceLROnPlateau",
)
@settings(max_examples=settings().max_examples // 2)
@given(options=trainings(), hook=st.sampled_from(HOOKS), when=st.floats(0, 0.999))
def test_what_follows_a_cut_is_the_rest_of_the_unbroken_trace(options: dict[str, Any], hook: str, when: float) -> None:
    if hook == "lr_scheduler_step":  # others step inside the batch
        options = {**options, "module": PlateauOfSteps}
    with tempfile.TemporaryDirectory() as folder:
        scramble(1)
        names = ("loaders", "module", "callbacks")
        others = {key: value for key, value in options.items() if key not in names}
        dry = Attempt(Path(folder), *(options[name] for name in names), **others)
        counting = Saver(hook, 0, Path(folder) / "none", dry.events, dry.directory)
        dry.fit(counting)
    if counting.calls:
        with tempfile.TemporaryDirectory() as folder:
            prove(Path(folder), hook, 1 + int(when * counting.calls), **options)
