"""`SpikeDetection`: fabric's, as a callback of a Trainer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leyden.core.errors import StateError
from leyden.fabric import spike
from leyden.trainer.core.callback import Callback


class SpikeDetection(spike.SpikeDetection, Callback):
    """Ends a run whose loss jumps, and writes down which batches to leave out of the next try.

    The rule and the arguments are those of `leyden.fabric.spike.SpikeDetection`. Looking at the loss after each batch costs
    the wait for it, and two collectives under several ranks.

    Raises:
        TrainingSpikeException: In `on_train_batch_end`, on all ranks, where one saw a spike.

    Example:
        >>> SpikeDetection(rtol=3.0).window
        10
    """

    def on_train_batch_end(  # pyrefly: ignore[bad-override] - the callback's signature, not fabric's
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the batch's loss.

        Raises:
            StateError: Manual optimisation, and `training_step` returned no loss.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            super().on_train_batch_end(trainer, loss, batch, batch_idx)
        elif not pl_module.automatic_optimization:  # an automatic step without a loss was skipped
            raise StateError(
                f"SpikeDetection looks at the loss, but training_step returned {type(outputs).__name__}. "
                "Return the loss, or {'loss': loss}, from training_step."
            )
