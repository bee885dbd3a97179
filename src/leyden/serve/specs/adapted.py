"""`adapted`: an API whose hooks speak the protocol of its spec, for an executor of a worker.

Executors call hooks and know no specs. So the spec's hooks go around the user's; all else, `predict`, `batch` and every
attribute, is that of the user's object.
"""

import asyncio
import dataclasses
from typing import Any

from leyden.serve.codec import write_json
from leyden.serve.hooks import Form, Hook, HookPlan, InputKind, form_of
from leyden.serve.specs.base import LitSpec


def adapted(api: Any, plan: HookPlan) -> tuple[Any, HookPlan]:
    """Return what an executor is made of, instead of an API and its plan; the same two if the API has no spec.

    Args:
        api: A `LitAPI`, set up.
        plan: What its hooks are.
    """
    if api.spec is None:
        return api, plan
    around = Hook(Form.ASYNC if api.enable_async else Form.SYNC, wants_context=True, is_own=True)
    return (_AsyncHooks if api.enable_async else _Hooks)(api, plan), dataclasses.replace(
        plan,
        decode_request=around,
        encode_response=_stream_hook(api.spec, plan) if api.stream else around,
        input=InputKind.ANY,
        input_type=None,
        formats_pieces=True,
    )


def _stream_hook(spec: LitSpec, plan: HookPlan) -> Hook:
    """Return how a stream is encoded: its pieces are checked one by one, when each is written."""
    if plan.encode_response.is_own or type(spec).encode_response is LitSpec.encode_response:
        return plan.encode_response
    return Hook(form_of(spec.encode_response), wants_context=True, is_own=True)


class _Hooks:
    """A user's API, and the hooks of its spec around those of its own."""

    def __init__(self, api: Any, plan: HookPlan) -> None:
        self._api, self._spec = api, api.spec
        self._decode, self._encode = plan.decode_request, plan.encode_response

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_api"], name)

    def decode_request(self, value: Any, context: Any) -> Any:
        request = self._read(value, context)
        return self._own(self._api.decode_request, self._decode, request, context)

    def encode_response(self, output: Any, context: Any = None) -> Any:
        made = self._own(self._api.encode_response, self._encode, output, context)
        return made if self._api.stream else self._spec.checked(made, context)

    def format_encoded_response(self, data: Any) -> bytes:
        piece = self._spec.checked(data)
        return piece if isinstance(piece, bytes) else write_json(piece) + b"\n"

    def _read(self, value: Any, context: Any) -> Any:
        request = self._spec.read(value)
        self._spec.populate_context(context, request)
        return request

    def _own(self, function: Any, hook: Hook, value: Any, context: Any) -> Any:
        """Return what the user's hook makes of a value, or else the spec's hook of the same name."""
        if not hook.is_own:
            return getattr(self._spec, function.__name__)(value, context)
        return function(value, context=context) if hook.wants_context else function(value)


class _AsyncHooks(_Hooks):
    """The same, for hooks that are async: one that is not runs in a thread."""

    async def decode_request(self, value: Any, context: Any) -> Any:  # type: ignore[override]
        return await self._awaited(self._api.decode_request, self._decode, self._read(value, context), context)

    @property
    def encode_response(self) -> Any:  # type: ignore[override]
        return super().encode_response if self._api.stream else self._encoded

    async def _encoded(self, output: Any, context: Any) -> Any:
        return self._spec.checked(await self._awaited(self._api.encode_response, self._encode, output, context), context)

    async def _awaited(self, function: Any, hook: Hook, value: Any, context: Any) -> Any:
        if hook.form.is_async or not hook.is_own:
            made = self._own(function, hook, value, context)
            return await made if hook.form is Form.ASYNC else made
        return await asyncio.to_thread(self._own, function, hook, value, context)
