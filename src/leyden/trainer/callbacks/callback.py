"""`Callback` at its documented place; it lies in `core/callback.py`, where modules and loops see it."""

from leyden.trainer.core.callback import Callback

__all__ = ["Callback"]
