"""Callbacks that are ready to use."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.callbacks.defaults.metric_callback import PredictionTimeLogger as PredictionTimeLogger
    from leyden.serve.callbacks.defaults.metric_callback import RequestTracker as RequestTracker
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"PredictionTimeLogger": ".metric_callback", "RequestTracker": ".metric_callback"})
