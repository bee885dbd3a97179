"""Code of the user's that is told what happens in a server: `Callback`, its events, and who calls it."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.callbacks.callback import Callback as Callback
    from leyden.serve.callbacks.callback import EventTypes as EventTypes
    from leyden.serve.callbacks.callback import NoopCallback as NoopCallback
    from leyden.serve.callbacks.runner import CallbackRunner as CallbackRunner
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {"Callback": ".callback", "CallbackRunner": ".runner", "EventTypes": ".callback", "NoopCallback": ".callback"},
    )
