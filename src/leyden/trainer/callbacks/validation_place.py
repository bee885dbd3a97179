"""Where an epoch's metrics are complete: at its end, or when validation ends. For callbacks that act on them."""

from typing import Any


def validates_once_per_epoch(trainer: Any) -> bool:
    """Return whether validation runs once in every epoch, after its last batch."""
    interval = trainer.val_check_interval
    is_whole = interval == 1.0 if isinstance(interval, float) else interval == trainer.num_training_batches
    return trainer.check_val_every_n_epoch == 1 and is_whole
