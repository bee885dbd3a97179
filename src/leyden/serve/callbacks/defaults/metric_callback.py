"""Callbacks that say in the log how long predictions take, and how many requests there are. `/metrics` has both as numbers."""

import time
from contextvars import ContextVar
from typing import Any, final

from leyden.core.log import get_logger
from leyden.serve.callbacks.callback import Callback

_BEGAN: ContextVar[float] = ContextVar("leyden_prediction_began", default=0.0)  # of this task: async hooks run side by side
_logger = get_logger(__name__)


@final
class PredictionTimeLogger(Callback):
    """Logs "Prediction took 0.12 seconds" after each `predict`; of a stream, after its end. At level `info`.

    Example:
        ```python
        LitServer(Classifier(), callbacks=[PredictionTimeLogger()]).run()
        ```
    """

    def on_before_predict(self, *args: Any, **kwargs: Any) -> None:
        _BEGAN.set(time.perf_counter())

    def on_after_predict(self, *args: Any, **kwargs: Any) -> None:
        _logger.info("Prediction took %.2f seconds", time.perf_counter() - _BEGAN.get())


@final
class RequestTracker(Callback):
    """Logs "Active requests: 3" at each request, of the front end that takes it. At level `info`; needs `track_requests=True`.

    Example:
        ```python
        LitServer(Classifier(), callbacks=[RequestTracker()], track_requests=True).run()
        ```
    """

    def __init__(self) -> None:
        self._has_told = False

    def on_request(self, *args: Any, **kwargs: Any) -> None:
        active = kwargs.get("active_requests")
        if active is not None:
            _logger.info("Active requests: %d", active)
        elif not self._has_told:
            self._has_told = True
            _logger.warning("RequestTracker has nothing to tell: pass LitServer(…, track_requests=True).")
