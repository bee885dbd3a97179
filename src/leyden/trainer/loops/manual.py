"""A step of a module that optimises by hand: the loop calls `training_step` and looks at what came back."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.engine.run import Run
from leyden.trainer.loops.optimize import Step, detached


def manual_step(run: Run) -> Step:
    """Return the step function."""
    state, store = run.state, run.store
    training_step = run.steps["training_step"]
    slots = store.slots("train", "training_step")
    warned = False

    def step(batch: Any, index: int) -> Any:
        nonlocal warned
        run.manual_steps = 0
        store.current = slots
        out = training_step(batch, index)
        state.stepped = True  # every batch makes a row; `global_step` counts those in which an optimizer stepped
        if run.manual_steps > 1 and not warned:
            warned = True
            rank_zero_warn(
                f"{run.manual_steps} optimizer steps happened in one batch. `global_step`, and so `max_steps` and `every_n_train_steps`, "
                "count batches in which at least one optimizer stepped, not the steps."
            )
        if out is None:
            return None, None
        if isinstance(out, Tensor):
            return out, None
        if isinstance(out, Mapping):
            return out.get("loss"), {key: detached(value) for key, value in out.items() if key != "loss"}
        raise ConfigError(
            f"In manual optimization, `training_step` must either return a Tensor or have no return, or return a dict; it returned {out!r}."
        )

    return step
