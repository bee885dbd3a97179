"""Which executor an API gets."""

from typing import Any

from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.executors.aio import AsyncExecutor
from leyden.serve.executors.batched import BatchedExecutor
from leyden.serve.executors.batched_streaming import BatchedStreamingExecutor
from leyden.serve.executors.executor import Executor
from leyden.serve.executors.single import SingleExecutor
from leyden.serve.executors.streaming import StreamingExecutor
from leyden.serve.hooks import HookPlan

_KINDS: dict[tuple[bool, bool], type[Executor]] = {
    (False, False): SingleExecutor,
    (True, False): BatchedExecutor,
    (False, True): StreamingExecutor,
    (True, True): BatchedStreamingExecutor,
}


def executor_for(api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None) -> Executor:
    """Return what does an API's requests: that of its loop, or what its arguments ask for."""
    if api.loop is not None:
        return api.loop.executor(api, plan, callbacks)
    if api.enable_async:
        return AsyncExecutor(api, plan, callbacks)
    return _KINDS[api.max_batch_size > 1, api.stream](api, plan, callbacks)
