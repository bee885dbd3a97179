"""Loops: how a worker goes through the requests of an API, where that is not one of the usual ways.

`ContinuousBatchingLoop` lets requests join and leave a computation that goes on, as language models do it; the model is asked
for one step at a time. Its methods call the API's hooks of the same names: write the hooks, or subclass the loop.
"""

import dataclasses
import enum
from typing import Any, final

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.executors.continuous import ContinuousExecutor
from leyden.serve.executors.executor import Executor
from leyden.serve.hooks import HookPlan, form_of, plan_of

HOOKS = ("add_request", "has_capacity", "has_active_requests", "step")


@final
class LitAPIStatus(enum.StrEnum):
    """What an `Output` says about its request."""

    OK = "OK"
    ERROR = "ERROR"
    FINISH_STREAMING = "FINISH_STREAMING"


@dataclasses.dataclass(slots=True)
class Output:
    """What a step made for one request.

    Args:
        uid: The request.
        output: A part of its answer; nothing is sent of `""` and `None`. The message, of an error.
        status: Whether more comes.
    """

    uid: str
    output: Any
    status: LitAPIStatus = LitAPIStatus.OK


class LitLoop:
    """How a worker goes through the requests of an API: `LitAPI(loop=…)`.

    A loop says so by the executor that it makes; loops that read queues themselves, in `run`, are not called.
    """

    def pre_setup(self, lit_api: Any, spec: Any = None) -> None:
        """Refuse what this loop cannot serve; called when the server is made.

        Raises:
            ConfigError: The loop, or the API, lacks a method.
        """
        if type(self).executor is LitLoop.executor:
            self.executor(lit_api, plan_of(lit_api, type(lit_api)))

    def executor(self, lit_api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None) -> Executor:
        """Return what does the requests, in a worker.

        Raises:
            UnsupportedError: The loop has none.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no executor(), and run() of a LitLoop is not called. Subclass ContinuousBatchingLoop and override "
            "its step(), or write executor(self, lit_api, plan, callbacks)."
        )


class ContinuousBatchingLoop(LitLoop):
    """Computes all active requests step by step; others join as soon as there is room.

    The API writes `add_request`, `has_capacity`, `has_active_requests` and `step`, and may write `cancel_request`.

    Args:
        max_sequence_length: How many parts an answer may have.
        no_pending_requests: Whether requests begin only when none is active, all that there is room for together.
        sleep_delay: How long to wait after a step that made nothing, in seconds.

    Raises:
        ConfigError: A number is not accepted.

    Example:
        >>> ContinuousBatchingLoop(max_sequence_length=16).max_sequence_length
        16
    """

    def __init__(
        self,
        max_sequence_length: int = 2048,
        no_pending_requests: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        sleep_delay: float = 0.001,
    ) -> None:
        if max_sequence_length < 1 or sleep_delay < 0:
            raise ConfigError(
                f"max_sequence_length={max_sequence_length!r}, sleep_delay={sleep_delay!r}: they must be at least 1, and not negative."
            )
        self.max_sequence_length, self.no_pending_requests, self.sleep_delay = max_sequence_length, no_pending_requests, sleep_delay

    def pre_setup(self, lit_api: Any, spec: Any = None) -> None:
        """Refuse an API that lacks hooks.

        Raises:
            ConfigError: It has neither hooks of its own, nor has a subclass of this loop methods.
        """
        for name in HOOKS:
            is_default = getattr(type(self), name) is getattr(ContinuousBatchingLoop, name)
            if is_default and _is_missing(lit_api, name):
                raise ConfigError(
                    f"{type(lit_api).__name__} has no {name}(), which {type(self).__name__} calls. Write {', '.join(HOOKS)}, or pass "
                    "loop=DefaultContinuousBatchingLoop(), which calls predict() and has_finished()."
                )
        _refuse_async(self, lit_api)

    def executor(self, lit_api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None) -> Executor:
        return ContinuousExecutor(lit_api, plan, callbacks, loop=self)

    def add_request(self, uid: str, request: Any, lit_api: Any, lit_spec: Any) -> None:
        """Begin a request, which was decoded."""
        lit_api.add_request(uid, request)

    def has_capacity(self, lit_api: Any) -> bool:
        """Return whether another request can begin."""
        return lit_api.has_capacity()

    def has_active_requests(self, lit_api: Any) -> bool:
        """Return whether any request is not done."""
        return lit_api.has_active_requests()

    def step(self, prev_outputs: list[Output] | None, lit_api: Any, lit_spec: Any) -> list[Output]:
        """Compute the next part of all active requests.

        Args:
            prev_outputs: What the step before made; `None` before the first one, and after one that failed.
            lit_api: Has the model.
            lit_spec: Its protocol.
        """
        return lit_api.step(prev_outputs)

    def cancel_request(self, uid: str, lit_api: Any) -> None:
        """Drop a request that nobody waits for any more."""
        lit_api.cancel_request(uid)


@final
class DefaultContinuousBatchingLoop(ContinuousBatchingLoop):
    """Calls `predict(inputs, generated)` for the next token of each request, until `has_finished` says that it is the last.

    The last one is sent like the others: return `""` or `None` from `predict` where it only marks the end.

    Args:
        max_sequence_length: Handed to `has_finished`; an answer of that many tokens ends in any case.
        no_pending_requests: Whether requests begin only when none is active.
        sleep_delay: How long to wait after a step that made nothing, in seconds.
    """

    def __init__(
        self,
        max_sequence_length: int = 2048,
        no_pending_requests: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        sleep_delay: float = 0.001,
    ) -> None:
        super().__init__(max_sequence_length, no_pending_requests, sleep_delay)
        self.active_sequences: dict[str, dict[str, Any]] = {}

    def pre_setup(self, lit_api: Any, spec: Any = None) -> None:
        """Refuse an API that lacks hooks.

        Raises:
            ConfigError: `predict` or `has_finished` is missing.
        """
        for name in ("predict", "has_finished"):
            if _is_missing(lit_api, name):
                raise ConfigError(f"{type(lit_api).__name__} has no {name}(), which DefaultContinuousBatchingLoop calls. Write it.")
        _refuse_async(self, lit_api)

    def add_request(self, uid: str, request: Any, lit_api: Any, lit_spec: Any) -> None:
        self.active_sequences[uid] = {"input": request, "generated_sequence": [], "current_length": 0}

    def has_capacity(self, lit_api: Any) -> bool:
        return len(self.active_sequences) < lit_api.max_batch_size

    def has_active_requests(self, lit_api: Any) -> bool:
        return bool(self.active_sequences)

    def step(self, prev_outputs: list[Output] | None, lit_api: Any, lit_spec: Any) -> list[Output]:
        uids = list(self.active_sequences)
        sequences = [self.active_sequences[uid] for uid in uids]
        tokens = list(lit_api.predict([each["input"] for each in sequences], [each["generated_sequence"] for each in sequences]))
        if len(tokens) != len(uids):
            raise ValueError(f"predict() made {len(tokens)} tokens of {len(uids)} requests: return one for each, in their order.")
        return [output for uid, token in zip(uids, tokens, strict=True) for output in self._outputs(uid, token, lit_api)]

    def _outputs(self, uid: str, token: Any, lit_api: Any) -> list[Output]:
        """Return a token's output, and the end if it is the last one."""
        sequence = self.active_sequences[uid]
        sequence["generated_sequence"].append(token)
        sequence["current_length"] += 1
        outputs = [Output(uid, token)]
        if lit_api.has_finished(uid, token, self.max_sequence_length) or sequence["current_length"] >= self.max_sequence_length:
            del self.active_sequences[uid]
            outputs.append(Output(uid, "", LitAPIStatus.FINISH_STREAMING))
        return outputs

    def cancel_request(self, uid: str, lit_api: Any) -> None:
        self.active_sequences.pop(uid, None)


def _refuse_async(loop: ContinuousBatchingLoop, lit_api: Any) -> None:
    for owner in (loop, lit_api):
        for name in (*HOOKS, "cancel_request", "has_finished"):
            method = getattr(owner, name, None)
            if method is not None and form_of(method).is_async:
                raise ConfigError(
                    f"{type(owner).__name__}.{name}() is async, and {type(loop).__name__} does not wait for it: requests join between two "
                    f"steps. Write def {name}(…), and call super().{name}(…) without await."
                )


def _is_missing(lit_api: Any, name: str) -> bool:
    """Return whether an API has a hook only from `LitAPI`, which raises."""
    method = getattr(type(lit_api), name, None)
    return method is None or method.__module__ == "leyden.serve.api"
