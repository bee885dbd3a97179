"""Callbacks: each its own module; names are imported at their first use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.core.callback import Callback as Callback
    from leyden.trainer.core.callback import Checkpoint as Checkpoint
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Callback": "leyden.trainer.core.callback",
            "Checkpoint": "leyden.trainer.core.callback",
        },
    )
