"""`Readiness`: what a front end says to those who ask whether the server is well."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, final

from leyden.core.log import get_logger
from leyden.serve.config import ServerConfig

HEALTH_SECONDS = 5.0
_logger = get_logger(__name__)


@final
class Readiness:
    """Knows how many workers there are to be, counts those that are ready, and asks the users' `health()`.

    Args:
        config: Of the server.
        num_ready: Returns how many workers of an API take requests.
    """

    def __init__(self, config: ServerConfig, num_ready: Callable[[int], int]) -> None:
        self._config, self._num_ready = config, num_ready
        self.wanted = [api.num_workers for api in config.apis]
        self.failing = [""] * len(config.apis)
        self.is_draining = False
        self._has_started = [False] * len(config.apis)

    @property
    def has_started(self) -> bool:
        """Whether each API had all its workers once."""
        for api, wanted in enumerate(self.wanted):
            if self._num_ready(api) >= wanted:
                self._has_started[api] = True
        return all(self._has_started)

    @property
    def is_ready(self) -> bool:
        """Whether each API has a worker, or is asleep, and the server is not about to stop."""
        return not self.is_draining and all(
            not self.failing[api] and (not wanted or self._num_ready(api)) for api, wanted in enumerate(self.wanted)
        )

    async def is_well(self) -> bool:
        """Return whether all workers that are wanted are ready, and every `health()` says so."""
        whole = all(self._num_ready(api) >= wanted for api, wanted in enumerate(self.wanted))
        if self.is_draining or not whole:
            return False
        checks = [_is_healthy(api.health) for api in self._config.apis if api.health is not None]
        return all(await asyncio.gather(*checks)) if checks else True

    def facts(self) -> dict[str, Any]:
        """Return what a person wants to know who sees that it is not ready."""
        return {
            "ready": self.is_ready,
            "draining": self.is_draining,
            "apis": {
                api.path: {"workers": self.wanted[number], "ready": self._num_ready(number), "failing": self.failing[number]}
                for number, api in enumerate(self._config.apis)
            },
        }


async def _is_healthy(health: Callable[[], bool | Awaitable[bool]]) -> bool:
    """Ask a user's hook; an exception, or no answer, is a no."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            if inspect.iscoroutinefunction(health):
                return bool(await health())
            found = await asyncio.to_thread(health)  # it may wait for something
            return bool(await found) if inspect.isawaitable(found) else bool(found)
    except Exception:  # whatever it raises
        _logger.exception("health() failed")
        return False
