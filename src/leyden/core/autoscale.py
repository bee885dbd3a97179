"""How many replicas a load needs: one pure rule, shared by everything that scales.

A policy, what was seen, and a memory go in; the number wanted and a new memory come out. Nothing here reads a clock, starts a
process or keeps anything, so a week of traffic is tested in a millisecond.

```
load   = mean(ongoing + queued) over the look-back
wanted = ceil(desired + (load / target - desired) · factor), + buffer while there is load, within the bounds
up       once more was wanted for `upscale_delay_seconds` without a break: to what is wanted now
down     to the most that was wanted during the last `downscale_delay_seconds`; a number just set counts as wanted
at zero  one waiting request is enough: to `initial_replicas`, at least 1, at once
```

Two details make the laws hold that the tests prove. A factor below 1 damps the way down, but rounding up must not stop it:
it takes at least one step until the need is met. And the sum is written so that a factor of 1 rounds nothing: 6 requests at a
target of 2 are 3 replicas on every machine.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from leyden.core.errors import ConfigError, ConfigTypeError


@final
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AutoscalePolicy:
    """When to start replicas, when to give them up, and how many.

    Args:
        min_replicas: The fewest; 0 lets all of them go while there is no work.
        max_replicas: The most.
        initial_replicas: How many to start with, and to come back with from zero; `None`: the fewest, and one.
        buffer: Replicas to keep beyond the need while there is load.
        target_ongoing_requests: Running and waiting requests that one replica should have.
        look_back_seconds: Over how long the load is averaged; 0: the newest sample alone.
        upscale_delay_seconds: For how long more must be wanted before replicas are started.
        downscale_delay_seconds: For how long fewer must be wanted before replicas are given up; `math.inf`: never.
        downscale_to_zero_delay_seconds: The same for the last replica; `None`: as for the others.
        upscaling_factor: The part of the missing replicas to start at a time; above 1 starts more than the load needs yet.
        downscaling_factor: The part of the spare replicas to give up at a time, at most 1.

    Raises:
        ConfigError: A value is out of range, contradicts another one, or has no effect.
        ConfigTypeError: A value is no number.

    Example:
        >>> AutoscalePolicy(min_replicas=0, max_replicas=4).target_ongoing_requests
        2.0
    """

    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int | None = None
    buffer: int = 0
    target_ongoing_requests: float = 2.0
    look_back_seconds: float = 30
    upscale_delay_seconds: float = 30
    downscale_delay_seconds: float = 600
    downscale_to_zero_delay_seconds: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0

    def __post_init__(self) -> None:
        _check_counts(self)
        _check_numbers(self)
        if self.downscale_to_zero_delay_seconds is not None and self.min_replicas > 0:
            raise ConfigError(
                f"downscale_to_zero_delay_seconds={self.downscale_to_zero_delay_seconds!r} has no effect with "
                f"min_replicas={self.min_replicas}, which never goes to zero. Set min_replicas=0, or leave the delay out."
            )


@final
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadSample:
    """What was seen at one moment, over all replicas together.

    Args:
        now: Seconds on a clock that never goes back.
        ongoing: Requests that replicas are working on.
        queued: Requests that wait.
        ready: Replicas that serve. The rule does not look at it, since `desired` counts those that start; it makes a record complete.
        desired: Replicas asked for: what serves, what starts, and nothing that is being given up.
    """

    now: float
    ongoing: float
    queued: float
    ready: int
    desired: int


@final
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AutoscaleState:
    """What the rule remembers between two calls; begin with `AutoscaleState()`.

    Args:
        window: Time and load of the samples in the look-back, oldest first.
        peaks: Until when how many were wanted, fewer from each to the next: each is the most since the one before it.
        more_since: Since when more is wanted without a break; `None`: it is not.
        desired: The answer given last; `None`: none yet.
    """

    window: tuple[tuple[float, float], ...] = ()
    peaks: tuple[tuple[float, int], ...] = ()
    more_since: float | None = None
    desired: int | None = None


def desired_replicas(policy: AutoscalePolicy, samples: Sequence[LoadSample], state: AutoscaleState) -> tuple[int, AutoscaleState]:
    """Return how many replicas there should be, and what to remember.

    Args:
        policy: The rule's settings.
        samples: What was seen since the last call, oldest first. Those not newer than what `state` knows are left out, so a
            caller may also pass all that it has. The answer is for the moment of the newest; without any, it stays.
        state: What the last call returned; at first `AutoscaleState()`.

    Example:
        >>> policy = AutoscalePolicy(max_replicas=4, upscale_delay_seconds=0)
        >>> busy = LoadSample(now=1.0, ongoing=2, queued=4, ready=1, desired=1)
        >>> desired_replicas(policy, [busy], AutoscaleState())[0]
        3
    """
    known = state.window[-1][0] if state.window else -math.inf
    new = [sample for sample in samples if sample.now > known]
    if not new:
        answer = _within(policy, state.desired if state.desired is not None else _initial(policy))
        return answer, dataclasses.replace(state, desired=answer)
    newest = new[-1]
    window = _looked_back(policy, state.window, new)
    desired = _within(policy, newest.desired)
    load = math.fsum(load for _, load in window) / len(window)
    wanted = _wanted(policy, load, desired) if desired else _woken(policy, newest)
    peaks = state.peaks
    if not peaks or newest.desired != state.desired:  # the first sample, or somebody else set it: it counts as wanted just now
        peaks = _with_peak(policy, peaks, newest.now, desired)
    peaks = _with_peak(policy, peaks, newest.now, wanted)
    answer, more_since = _decided(policy, desired, wanted, peaks, newest.now, state.more_since)
    return answer, AutoscaleState(window=window, peaks=peaks, more_since=more_since, desired=answer)


def _initial(policy: AutoscalePolicy) -> int:
    return policy.min_replicas if policy.initial_replicas is None else policy.initial_replicas


def _within(policy: AutoscalePolicy, replicas: int) -> int:
    return min(max(replicas, policy.min_replicas), policy.max_replicas)


def _looked_back(
    policy: AutoscalePolicy, window: tuple[tuple[float, float], ...], new: Sequence[LoadSample]
) -> tuple[tuple[float, float], ...]:
    """Return the loads that count: those seen before and now, without what is too long ago."""
    oldest = new[-1].now - policy.look_back_seconds
    seen = (*window, *((sample.now, sample.ongoing + sample.queued) for sample in new))
    return tuple(entry for entry in seen if entry[0] >= oldest)


def _woken(policy: AutoscalePolicy, newest: LoadSample) -> int:
    """Return how many to have when there are none: the look-back is not asked, a request is waiting now."""
    if newest.ongoing + newest.queued <= 0:
        return 0
    return _within(policy, max(1, _initial(policy)))


def _wanted(policy: AutoscalePolicy, load: float, desired: int) -> int:
    """Return how many this load wants, starting from some that are there."""
    buffer = policy.buffer if load > 0 else 0
    exact = load / policy.target_ongoing_requests
    if exact > desired:
        moved = _ceil(desired + (exact - desired) * policy.upscaling_factor) + buffer
    else:
        damped = _ceil(desired + (exact - desired) * policy.downscaling_factor) + buffer
        moved = min(damped, max(_ceil(exact) + buffer, desired - 1))  # 10 replicas, a factor of 0.1: ceil(9.05) would stay 10
    return _within(policy, max(moved, 1) if load > 0 else moved)


def _ceil(replicas: float) -> int:
    return math.ceil(round(replicas, 9))  # 1.1 / 0.1 is 11.000000000000002, and that is no reason for a twelfth


def _with_peak(policy: AutoscalePolicy, peaks: tuple[tuple[float, int], ...], now: float, wanted: int) -> tuple[tuple[float, int], ...]:
    """Return the peaks with one more. They fall strictly, so there are never more of them than numbers of replicas."""
    horizon = now - max(policy.downscale_delay_seconds, policy.downscale_to_zero_delay_seconds or 0.0)
    held = (*peaks[:-1], *((now, peak) for _, peak in peaks[-1:]))  # what was wanted last was wanted until now
    return (*(peak for peak in held if peak[0] > horizon and peak[1] > wanted), (now, wanted))


def _highest(peaks: tuple[tuple[float, int], ...], since: float) -> int:
    return max([peaks[-1][1], *(wanted for until, wanted in peaks if until > since)])


def _decided(
    policy: AutoscalePolicy, desired: int, wanted: int, peaks: tuple[tuple[float, int], ...], now: float, more_since: float | None
) -> tuple[int, float | None]:
    """Return the number to have from now on, and since when more is wanted."""
    if wanted > desired:
        since = now if more_since is None else more_since
        if desired == 0 or now - since >= policy.upscale_delay_seconds:
            return wanted, None
        return desired, since
    return min(desired, _least(policy, desired, peaks, now)), None


def _least(policy: AutoscalePolicy, desired: int, peaks: tuple[tuple[float, int], ...], now: float) -> int:
    """Return the fewest that the delays allow."""
    delay = policy.downscale_delay_seconds
    last_delay = delay if policy.downscale_to_zero_delay_seconds is None else policy.downscale_to_zero_delay_seconds
    fewest = _highest(peaks, now - delay) if desired > 1 else 0
    last = min(1, _highest(peaks, now - last_delay))  # the last one has a delay of its own
    return _within(policy, max(fewest, last))


def _check_counts(policy: AutoscalePolicy) -> None:
    _check_count("min_replicas", policy.min_replicas, 0)
    _check_count("max_replicas", policy.max_replicas, 1)
    _check_count("buffer", policy.buffer, 0)
    least, most, initial = policy.min_replicas, policy.max_replicas, policy.initial_replicas
    if least > most:
        raise ConfigError(
            f"min_replicas={least} is above max_replicas={most}. Accepted is 0 ≤ min_replicas ≤ max_replicas: set max_replicas={least}."
        )
    if initial is None:
        return
    _check_count("initial_replicas", initial, 0)
    if not least <= initial <= most:
        raise ConfigError(
            f"initial_replicas={initial} is outside of min_replicas={least} to max_replicas={most}. "
            f"Set initial_replicas={_within(policy, initial)}, or widen the bounds."
        )


def _check_numbers(policy: AutoscalePolicy) -> None:
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if field.name not in _LIMITS or value is field.default:
            continue
        accepted, fits = _LIMITS[field.name]
        fix = f"Accepted is {accepted}: set {field.name}={field.default!r}, the default."
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigTypeError(f"{field.name}={value!r} is no number. {fix}")
        if not fits(value):
            raise ConfigError(f"{field.name}={value!r} is not accepted. {fix}")


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(f"{name}={value!r} is no whole number. Accepted is an int ≥ {least}: set {name}={max(1, least)}.")
    if value < least:
        raise ConfigError(f"{name}={value!r} is not accepted. Accepted is a whole number ≥ {least}: set {name}={least}.")


_Limit = tuple[str, Callable[[float], bool]]  # what is accepted, in words and as a test; NaN fails each
_DELAY: Final[_Limit] = ("a number ≥ 0", lambda value: value >= 0)
_RATE: Final[_Limit] = ("a finite number > 0", lambda value: 0 < value < math.inf)
# Giving up more than what is spare would swing for ever: 6 replicas, a need of 5.1, a factor of 2 → ceil(4.2) = 5 → 6 → 5 …
_PART: Final[_Limit] = ("a number above 0 and at most 1, as more would give up replicas that are needed", lambda value: 0 < value <= 1)
_LIMITS: Final[dict[str, _Limit]] = {
    "target_ongoing_requests": _RATE,
    "look_back_seconds": ("a finite number ≥ 0", lambda value: 0 <= value < math.inf),
    "upscale_delay_seconds": _DELAY,
    "downscale_delay_seconds": _DELAY,
    "downscale_to_zero_delay_seconds": _DELAY,
    "upscaling_factor": _RATE,
    "downscaling_factor": _PART,
}
