"""`Scaling`: how many workers an API is to have, as its load wants it; the rule is `leyden.core.autoscale`."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, final

from leyden.core.autoscale import AutoscalePolicy, AutoscaleState, LoadSample, desired_replicas

LOOK_SECONDS = 1.0  # between two looks at the load


class Load(NamedTuple):
    """What is there of an API now.

    Args:
        queued: Requests that wait for a worker.
        inflight: Requests that are not answered, with those that wait.
        ready: Workers that take requests.
        wanted: Workers that it is to have.
    """

    queued: float
    inflight: float
    ready: int
    wanted: int


@final
class Scaling:
    """Looks at the load of APIs once a second, and at once when a request waits for one that sleeps.

    Args:
        policies: By the number of the API; those without one stay as they are.
        load_of: Returns what is there of an API.
    """

    def __init__(self, policies: Mapping[int, AutoscalePolicy], load_of: Callable[[int], Load]) -> None:
        self._policies, self._load_of = policies, load_of
        self._states = {api: AutoscaleState() for api in policies}
        self._due = 0.0

    def wake(self) -> None:
        """Look at the load with the next `changes`."""
        self._due = 0.0

    def next_wakeup(self) -> float | None:
        """Return when a look is due; `None` if never."""
        return self._due if self._policies else None

    def changes(self, now: float) -> Iterator[tuple[int, int]]:
        """Yield the APIs that are to have another number of workers, and which; nothing before a look is due."""
        if now < self._due:
            return
        self._due = now + LOOK_SECONDS
        for api, policy in self._policies.items():
            queued, inflight, ready, wanted = self._load_of(api)
            sample = LoadSample(now=now, ongoing=max(0.0, inflight - queued), queued=queued, ready=ready, desired=wanted)
            desired, self._states[api] = desired_replicas(policy, [sample], self._states[api])
            if desired != wanted:
                yield api, desired
