"""How many replicas a load wants: a pure rule, with no clock, no threads and no memory but what it returns.

Serving scales the workers of a server by it, deployments whole servers. Whoever asks keeps the state and the samples of the
look-back, and acts on the number.

- Load is the mean of what is running and waiting over the look-back. Each replica is to have `target_ongoing_requests`.
- More replicas come when more were wanted for `upscale_delay_seconds` without a break; they are as many as are wanted then.
- Fewer come when fewer were wanted for `downscale_delay_seconds`; they are the most that were wanted meanwhile.
- From zero, one waiting request brings the first replicas at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from leyden.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoscalePolicy:
    """The bounds and the pace.

    Args:
        min_replicas: The fewest; 0 lets a service go to sleep.
        max_replicas: The most.
        initial_replicas: At the start, and when a request wakes a service that sleeps; by default `min_replicas`, and at least one.
        buffer: Further replicas while there is any load.
        target_ongoing_requests: Running and waiting, for each replica.
        look_back_seconds: Over which the load is averaged.
        upscale_delay_seconds: For how long more must be wanted.
        downscale_delay_seconds: For how long fewer must be wanted.
        downscale_to_zero_delay_seconds: The same for the last one; by default as long as for the others.
        upscaling_factor: How much of the way up is gone at once; below 1 is slower.
        downscaling_factor: The same for the way down.

    Raises:
        ConfigError: A number is out of its range.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int | None = None
    buffer: int = 0
    target_ongoing_requests: float = 2.0
    look_back_seconds: float = 30.0
    upscale_delay_seconds: float = 30.0
    downscale_delay_seconds: float = 600.0
    downscale_to_zero_delay_seconds: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0

    def __post_init__(self) -> None:
        _at_least("min_replicas", self.min_replicas, 0)
        _at_least("max_replicas", self.max_replicas, max(1, self.min_replicas), "1 and min_replicas")
        if self.initial_replicas is not None:
            _at_least("initial_replicas", self.initial_replicas, self.min_replicas, "min_replicas")
            if self.initial_replicas > self.max_replicas:
                raise ConfigError(f"initial_replicas={self.initial_replicas} is more than max_replicas={self.max_replicas}.")
        for name in ("buffer", "look_back_seconds", "upscale_delay_seconds", "downscale_delay_seconds"):
            _at_least(name, getattr(self, name), 0)
        if self.downscale_to_zero_delay_seconds is not None:
            _at_least("downscale_to_zero_delay_seconds", self.downscale_to_zero_delay_seconds, 0)
        for name in ("target_ongoing_requests", "upscaling_factor", "downscaling_factor"):
            if not getattr(self, name) > 0 or not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)!r} is not accepted: it takes a number > 0.")

    @property
    def first_replicas(self) -> int:
        """How many a service starts with, and wakes up with."""
        return max(1, self.min_replicas if self.initial_replicas is None else self.initial_replicas)


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What was seen at one moment.

    Args:
        now: Seconds, of any clock that does not go back.
        ongoing: Requests that run.
        queued: Requests that wait.
        ready: Replicas that take requests.
        desired: Replicas that were wanted then.
    """

    now: float
    ongoing: float
    queued: float
    ready: int
    desired: int


@dataclass(frozen=True, slots=True)
class AutoscaleState:
    """The rule's memory.

    Args:
        desired: How many replicas are wanted; `None` before the first decision.
        up_since: Since when more are wanted.
        down_since: Since when fewer are wanted.
        highest: The most that were wanted since then.
    """

    desired: int | None = None
    up_since: float | None = None
    down_since: float | None = None
    highest: int = 0


def desired_replicas(policy: AutoscalePolicy, samples: Sequence[LoadSample], state: AutoscaleState) -> tuple[int, AutoscaleState]:
    """Return how many replicas there are to be, and the state for the next time.

    Args:
        policy: The bounds and the pace.
        samples: In order of time; those older than the look-back may be left out. Without one nothing changes.
        state: From the last time.

    Example:
        >>> policy = AutoscalePolicy(max_replicas=8, target_ongoing_requests=2, upscale_delay_seconds=0)
        >>> desired_replicas(policy, [LoadSample(0.0, ongoing=4, queued=6, ready=1, desired=1)], AutoscaleState(desired=1))[0]
        5
    """
    desired = policy.first_replicas if state.desired is None else min(max(state.desired, policy.min_replicas), policy.max_replicas)
    state = replace(state, desired=desired)
    if not samples:
        return desired, state
    now = samples[-1].now
    if desired == 0:
        woken = policy.first_replicas if samples[-1].queued + samples[-1].ongoing > 0 else 0
        return woken, AutoscaleState(desired=woken)
    wanted = _wanted(policy, _load(policy, samples), desired)
    if wanted > desired:
        return _upwards(policy, wanted, now, state)
    if wanted < desired:
        return _downwards(policy, wanted, now, state)
    return desired, AutoscaleState(desired=desired)


def _load(policy: AutoscalePolicy, samples: Sequence[LoadSample]) -> float:
    """Return the mean of running and waiting requests over the look-back; of the newest sample at least."""
    start = samples[-1].now - policy.look_back_seconds
    seen = [sample.ongoing + sample.queued for sample in samples if sample.now > start] or [samples[-1].ongoing + samples[-1].queued]
    return sum(seen) / len(seen)


def _wanted(policy: AutoscalePolicy, load: float, desired: int) -> int:
    ratio = load / (policy.target_ongoing_requests * desired)
    factor = policy.upscaling_factor if ratio > 1 else policy.downscaling_factor
    exact = desired * (1 + (ratio - 1) * factor)
    wanted = math.ceil(exact - 1e-9 * desired)  # 3.0000000004 of three replicas are three
    if load > 0:
        wanted = max(wanted, 1) + policy.buffer  # some load wants some replica, however small the target lets it look
    return min(max(wanted, policy.min_replicas), policy.max_replicas)


def _upwards(policy: AutoscalePolicy, wanted: int, now: float, state: AutoscaleState) -> tuple[int, AutoscaleState]:
    since = now if state.up_since is None else state.up_since
    if now - since >= policy.upscale_delay_seconds:
        return wanted, AutoscaleState(desired=wanted)
    return state.desired or 0, AutoscaleState(desired=state.desired, up_since=since)


def _downwards(policy: AutoscalePolicy, wanted: int, now: float, state: AutoscaleState) -> tuple[int, AutoscaleState]:
    since, highest = (now, wanted) if state.down_since is None else (state.down_since, max(state.highest, wanted))
    waited, desired = now - since, state.desired or 0
    to_zero = policy.downscale_delay_seconds if policy.downscale_to_zero_delay_seconds is None else policy.downscale_to_zero_delay_seconds
    if highest == 0 and waited >= to_zero:
        return 0, AutoscaleState(desired=0)
    chosen = max(highest, 1)
    if chosen < desired and waited >= policy.downscale_delay_seconds:
        # What was wanted goes on being waited for, where the last one takes longer.
        keeps_waiting = highest == 0
        return chosen, AutoscaleState(desired=chosen, down_since=since if keeps_waiting else None, highest=highest if keeps_waiting else 0)
    return desired, AutoscaleState(desired=desired, down_since=since, highest=highest)


def _at_least(name: str, value: float, least: float, told: str = "") -> None:
    if isinstance(value, bool) or not value >= least or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a number ≥ {told or f'{least:g}'}.")
