"""`Checkpoint` at its documented place; it lies in `core/callback.py`, beside the base that it derives from."""

from leyden.trainer.core.callback import Checkpoint

__all__ = ["Checkpoint"]
