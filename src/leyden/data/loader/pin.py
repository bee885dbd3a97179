"""Page-locked memory, from which batches are copied to a GPU while it works."""

import warnings
from collections.abc import Mapping
from typing import Any

from leyden.core.optional import require


def pins(wanted: bool) -> bool:  # noqa: FBT001 - says what was asked for
    """Return whether memory can be pinned, with a warning if it is wanted and there is nothing to pin it for."""
    if not wanted:
        return False
    if require("torch", purpose="pin_memory=True").accelerator.is_available():
        return True
    warnings.warn("pin_memory=True has no effect: this machine has no accelerator.", stacklevel=3)
    return False


def pinned(batch: Any) -> Any:
    """Return a batch whose tensors lie in page-locked memory."""
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, Mapping):
        return {key: pinned(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(pinned(value) for value in batch))
    if isinstance(batch, (list, tuple)) and not (batch and isinstance(batch[0], (str, bytes))):
        return [pinned(value) for value in batch] if isinstance(batch, list) else tuple(pinned(value) for value in batch)
    return batch
