"""`LitAPI`: what a user subclasses. Its hooks run in workers; its arguments and their mistakes are told before any starts."""

import math
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, final

from leyden.core.autoscale import AutoscalePolicy
from leyden.core.errors import ConfigError, ConfigTypeError, StateError, listed
from leyden.serve.arguments import checked_path
from leyden.serve.codec import write_json
from leyden.serve.hooks import Form, HookPlan, InputKind, form_of, misfit, plan_of
from leyden.serve.typed import checked_type

StreamFormat = Literal["auto", "ndjson", "sse", "text"]
STREAM_FORMATS = ("auto", "ndjson", "sse", "text")
SLOW_INIT_SECONDS = 1.0
CONCURRENCY, BUFFER_BYTES = 64, 2**20
_NO_BATCHES: tuple[type, ...] = (str, dict, set)
_GENERATOR = """
    def predict(self, x):
        for token in self.model(x):
            yield token
"""
_ASYNC_GENERATOR = """
    async def predict(self, x):
        async for token in self.engine.generate(x):
            yield token
"""
_ASYNC = """
    async def predict(self, x):
        return await self.engine.generate(x)
"""


class LitAPI:
    """A model as a service. Subclass it, load the model in `setup`, answer in `predict`.

    A request goes through `decode_request` → `predict` → `encode_response`; with `max_batch_size > 1` through `batch` before, and
    `unbatch` after `predict`. A hook that names an argument `context` gets what is known of its request.

    Args:
        max_batch_size: How many requests `predict` gets at once.
        batch_timeout: How long a batch waits to be full, in seconds from its first request on; 0 takes what is there.
        api_path: Where it answers.
        stream: Whether `predict` and `encode_response` yield.
        loop: `"auto"`, or a `LitLoop`.
        spec: A protocol that clients know, such as `OpenAISpec()`.
        mcp: Makes it a tool.
        enable_async: Whether hooks are async.
        idempotent: Whether a request that was lost with its worker, before a byte of its answer was sent, runs again, once.
        stream_format: `"auto"` follows the request and the values: `"ndjson"`, `"sse"` or `"text"`.
        concurrency: Requests at once in one worker, of async hooks.
        max_stream_buffer_bytes: What a client that reads slowly may be behind before its generator waits.
        autoscale: How the number of workers follows the load.

    Raises:
        ConfigError: An argument is not accepted.

    Example:
        >>> class Square(LitAPI):
        ...     def decode_request(self, request):
        ...         return request["input"]
        ...
        ...     def predict(self, x):
        ...         return {"output": x**2}
        >>> Square(api_path="/square").predict(4)
        {'output': 16}
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__dict__.get("__init__")
        if own is not None:
            cls.__init__ = _timed(own)  # type: ignore[method-assign]

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        max_batch_size: int = 1,
        batch_timeout: float = 0.0,
        api_path: str = "/predict",
        stream: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        loop: Any = "auto",
        spec: Any = None,
        mcp: Any = None,
        enable_async: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        *,
        idempotent: bool = False,
        stream_format: StreamFormat = "auto",
        concurrency: int = CONCURRENCY,
        max_stream_buffer_bytes: int = BUFFER_BYTES,
        autoscale: AutoscalePolicy | None = None,
    ) -> None:
        self.max_batch_size = _whole("max_batch_size", max_batch_size)
        self.batch_timeout = _seconds(batch_timeout)
        self.api_path = checked_path("api_path", api_path)
        self.stream, self.enable_async, self.idempotent = stream, enable_async, idempotent
        self.loop = _loop(loop)
        self.spec, self.mcp, self.autoscale = spec, mcp, _policy(autoscale)
        if stream_format not in STREAM_FORMATS:
            raise ConfigError(f"stream_format={stream_format!r} is not accepted: it takes {listed(STREAM_FORMATS)}.")
        self.stream_format: StreamFormat = stream_format
        self.concurrency = _whole("concurrency", concurrency)
        self.max_stream_buffer_bytes = _whole("max_stream_buffer_bytes", max_stream_buffer_bytes)
        self.device: Any = None
        self.request_timeout: float = math.inf
        self._send_log: Callable[[str, Any], None] | None = None
        self._is_made = True

    # -- hooks -----------------------------------------------------------------------------------------------------

    def pre_setup(self, spec: Any = None) -> None:
        """Prepare what needs the spec; called when the server is made."""

    def setup(self, device: Any) -> None:
        """Load the model, once in each worker.

        Args:
            device: `"cpu"`, `"cuda:1"`, `"mps:0"`, or a list of them.
        """

    def warmup(self) -> None:
        """Make the first request as quick as the others: called after `setup`, before the worker takes any."""

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        """Make the input of `predict` from a request: by default its JSON value or form."""
        return request

    def batch(self, inputs: Sequence[Any]) -> Any:
        """Make one input of several: tensors and arrays are stacked, others stay a list."""
        first: Any = inputs[0]
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch is not None and isinstance(first, torch.Tensor):
            return torch.stack(list(inputs))
        if numpy is not None and isinstance(first, numpy.ndarray):
            return numpy.stack(list(inputs))
        return inputs

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Answer: the one hook that every API has of its own."""
        raise NotImplementedError(f"{type(self).__name__} has no predict().")

    def unbatch(self, output: Any) -> Any:
        """Take the output of a batch apart, one for each request."""
        if isinstance(output, _NO_BATCHES):
            warnings.warn(
                f"unbatch() makes a list of a {type(output).__name__}: return one output for each request from predict(), or override "
                "unbatch().",
                UserWarning,
                stacklevel=2,
            )
        return list(output)

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        """Make the answer of an output: by default the output itself. With `stream`, it takes a generator and yields."""
        return output

    def format_encoded_response(self, data: Any) -> Any:
        """Make the bytes of a stream's chunk: dicts and models become a line of JSON, others stay as they are."""
        if isinstance(data, dict) or hasattr(data, "model_dump"):
            return write_json(data).decode() + "\n"
        return data

    def health(self) -> bool:
        """Return whether all is well; asked in the front end, where `setup` never ran."""
        return True

    def log(self, key: str, value: Any) -> None:
        """Hand a value to the loggers; it costs the request some microseconds, however slow they are.

        Args:
            key: Its name.
            value: Numbers, text, bytes, lists and dicts of them; small arrays and tensors. What cannot be sent is told in the log.
        """
        if self._send_log is None:
            warnings.warn(
                f"log({key!r}, …) went nowhere. Values are taken in workers, from setup() on, with LitServer(…, loggers=[…]).",
                UserWarning,
                stacklevel=2,
            )
            return
        self._send_log(key, value)

    # -- continuous batching ---------------------------------------------------------------------------------------

    def add_request(self, uid: str, request: Any) -> None:
        """Begin a request, of a model that computes many at once and in parts."""
        raise NotImplementedError(f"{type(self).__name__} has no add_request(), which continuous batching needs.")

    def has_capacity(self) -> bool:
        """Return whether another request can begin."""
        raise NotImplementedError(f"{type(self).__name__} has no has_capacity(), which continuous batching needs.")

    def has_active_requests(self) -> bool:
        """Return whether any request is not done."""
        raise NotImplementedError(f"{type(self).__name__} has no has_active_requests(), which continuous batching needs.")

    def step(self, prev_outputs: Any) -> Any:
        """Compute the next part of all requests that are active."""
        raise NotImplementedError(f"{type(self).__name__} has no step(), which continuous batching needs.")

    def has_finished(self, uid: str, token: str, max_sequence_length: int) -> bool:
        """Return whether a request is done."""
        raise NotImplementedError(f"{type(self).__name__} has no has_finished(), which continuous batching needs.")

    def cancel_request(self, uid: str) -> None:
        """Drop a request that nobody waits for any more; by default its outputs are."""

    # -- checks ----------------------------------------------------------------------------------------------------

    def check(self, timeout: float | None = math.inf) -> HookPlan:
        """Return what the hooks are, after looking for every mistake that can be seen before a worker starts.

        Args:
            timeout: The server's, in seconds; `False`, -1 and `None` are none.

        Raises:
            ConfigError: A hook or an argument does not go with the others; the message shows what would.
        """
        if not getattr(self, "_is_made", False):
            raise ConfigError(f"{type(self).__name__}.__init__ does not call super().__init__(). Call it first.")
        plan = plan_of(self, LitAPI)
        if not plan.predict.is_own and self.spec is None and self.loop is None:
            raise ConfigError(f"{type(self).__name__} has no predict(). Write one:{_GENERATOR if self.stream else _plain_predict()}")
        if timeout is not None and timeout is not False and self.batch_timeout > timeout != -1:
            raise ConfigError(
                f"batch_timeout must be less than request_timeout: {self.batch_timeout:g} s is more than {timeout:g} s. Lower "
                "batch_timeout=, or raise LitServer(…, timeout=)."
            )
        if self.loop is not None:
            self.loop.pre_setup(self, self.spec)
        self._check_calls(plan)
        self._check_async(plan)
        self._check_streams(plan)
        self._check_batches(plan)
        self._check_effects()
        self._check_pickle()
        return plan

    def _check_calls(self, plan: HookPlan) -> None:
        for name in ("pre_setup", "setup", "warmup"):
            if form_of(getattr(self, name)) is not Form.SYNC:
                raise ConfigError(f"{name}() is {form_of(getattr(self, name)).value}, and nobody would wait for it. Write def {name}(…).")
        for name, hook in plan.hooks().items():
            if name == "predict" and self.loop is not None:
                continue  # its loop calls it, if anybody does
            reason = misfit(getattr(self, name), hook) if hook.is_own else ""
            if reason:
                raise ConfigError(
                    f"{name}() cannot be called with what it gets: {reason}. Write def {name}(self, x), or def {name}(self, x, context) "
                    "to know the request; give further arguments a default."
                )
        if plan.input is InputKind.TYPED:
            checked_type(plan.input_type)

    def _check_async(self, plan: HookPlan) -> None:
        hooks = {name: hook for name, hook in plan.hooks().items() if hook.is_own}
        if not self.enable_async:
            found = [name for name, hook in hooks.items() if hook.form.is_async]
            if found:
                raise ConfigError(
                    f"{found[0]}() is async, and enable_async is not set. Pass enable_async=True, or write def {found[0]}(…)."
                )
            return
        if plan.predict.is_own and not plan.predict.form.is_async:
            shape = _ASYNC_GENERATOR if self.stream else _ASYNC
            raise ConfigError(f"Async validation failed: predict() is {plan.predict.form.value}, and enable_async=True needs:{shape}")
        if self.max_batch_size > 1:
            raise ConfigError(
                f"Async batching is not supported: max_batch_size={self.max_batch_size} with enable_async=True. Set max_batch_size=1; "
                "concurrency= says how many requests run at once."
            )
        for name in ("decode_request", "encode_response"):
            if name in hooks and not hooks[name].form.is_async:
                warnings.warn(f"{name}() is not async: it runs in a thread, for each request.", UserWarning, stacklevel=4)

    def _check_streams(self, plan: HookPlan) -> None:
        predict, encode = plan.predict, plan.encode_response
        if not self.stream:
            for name, hook in (("decode_request", plan.decode_request), ("predict", predict), ("encode_response", encode)):
                if hook.is_own and hook.form.yields and self.spec is None:
                    raise ConfigError(
                        f"{name}() is {hook.form.value}, and stream is not set. Pass stream=True, or return instead of yield."
                    )
            return
        if predict.is_own and not predict.form.yields and self.loop is None:
            shape = _ASYNC_GENERATOR if self.enable_async else _GENERATOR
            raise ConfigError(f"predict() is {predict.form.value}, and stream=True needs a generator:{shape}")
        if encode.is_own and not encode.form.yields and self.spec is None and self.loop is None:
            raise ConfigError(
                f"encode_response() is {encode.form.value}, and stream=True needs a generator:\n"
                "    def encode_response(self, outputs):\n        for output in outputs:\n            yield output\n"
            )
        if self.max_batch_size > 1 and plan.unbatch.is_own and not plan.unbatch.form.yields:
            raise ConfigError(
                f"unbatch() is {plan.unbatch.form.value}, and a stream of batches needs a generator:\n"
                "    def unbatch(self, outputs):\n        for output in outputs:\n            yield list(output)\n"
            )

    def _check_effects(self) -> None:
        """Warn of arguments that change nothing beside the others."""
        idle = {
            "batch_timeout": self.batch_timeout > 0 and self.max_batch_size == 1 and "max_batch_size is 1",
            "concurrency": self.concurrency != CONCURRENCY and not self.enable_async and self.loop is None and "enable_async is not set",
            "stream_format": self.stream_format != "auto" and not self.stream and "stream is not set",
            "max_stream_buffer_bytes": self.max_stream_buffer_bytes != BUFFER_BYTES and not self.stream and "stream is not set",
        }
        found = [f"{name}={getattr(self, name)!r} ({reason})" for name, reason in idle.items() if reason]
        if found:
            warnings.warn(f"{type(self).__name__}: without effect: {', '.join(found)}.", UserWarning, stacklevel=4)

    def _check_batches(self, plan: HookPlan) -> None:
        if self.max_batch_size == 1 and plan.batch.is_own and plan.unbatch.is_own:
            warnings.warn("batch() and unbatch() are never called: max_batch_size is 1.", UserWarning, stacklevel=4)

    def _check_pickle(self) -> None:
        try:
            pickle.Pickler(_Nowhere()).dump(self)  # type: ignore[arg-type]
        except Exception as error:
            for name, value in self.__dict__.items():
                if not _pickles(value):
                    raise ConfigError(
                        f"{type(self).__name__}.{name} cannot be sent to a worker ({error}): create it in setup(), which runs there."
                    ) from error
            raise ConfigError(f"{type(self).__name__} cannot be sent to a worker ({error}): define it at the top of a module.") from error


def stream_of_batches(outputs: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield one list of outputs for each step of a batch: what `unbatch` does by default with a stream."""
    for output in outputs:
        yield list(output)


@final
class _Nowhere:
    """A file for what is only tried: a model in an attribute is not held a second time."""

    def write(self, data: Any) -> int:
        return len(data)


def _timed(init: Callable[..., None]) -> Callable[..., None]:
    """Return an `__init__` that tells if it takes long in a class without `setup`: it then runs here, not in the workers."""

    def timed(self: LitAPI, *args: Any, **kwargs: Any) -> None:
        start = time.monotonic()
        init(self, *args, **kwargs)
        is_last = type(self).__init__ is timed  # not the one of a parent, which is counted in
        if is_last and time.monotonic() - start >= SLOW_INIT_SECONDS and type(self).setup is LitAPI.setup:
            warnings.warn(
                f"{type(self).__name__}.__init__ took {time.monotonic() - start:.1f} s. Load models in setup(self, device), which runs in "
                "each worker.",
                RuntimeWarning,
                stacklevel=2,
            )

    timed.__wrapped__ = init  # type: ignore[attr-defined]
    timed.__doc__ = init.__doc__
    return timed


def _plain_predict() -> str:
    return "\n    def predict(self, x):\n        return self.model(x)\n"


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigTypeError(f"{name} must be a whole number, and is {value!r}.")
    if value <= 0:
        raise ConfigError(f"{name} must be greater than 0, and is {value}.")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigTypeError(f"batch_timeout must be a number of seconds, and is {value!r}.")
    if not value >= 0:
        raise ConfigError(f"batch_timeout must be greater than or equal to 0, and is {value!r}.")
    return float(value)


def _loop(loop: Any) -> Any:
    if loop is None or (isinstance(loop, str) and loop == "auto"):
        return None
    if isinstance(loop, str | int | float | type):
        raise ConfigError(f"loop must be an instance of LitLoop or 'auto', and is {loop!r}.")
    return loop


def _policy(autoscale: Any) -> AutoscalePolicy | None:
    if autoscale is None or isinstance(autoscale, AutoscalePolicy):
        return autoscale
    raise ConfigTypeError(f"autoscale={autoscale!r:.80} is not accepted: it takes AutoscalePolicy(min_replicas=…, max_replicas=…) or None.")


def _pickles(value: Any) -> bool:
    try:
        pickle.Pickler(_Nowhere()).dump(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever the user's object raises: it does not pickle
        return False
    return True


def made(api: Any) -> LitAPI:
    """Return an API, or say what was given instead.

    Raises:
        ConfigTypeError: It is no `LitAPI`.
        StateError: It is the class.
    """
    if isinstance(api, type) and issubclass(api, LitAPI):
        raise StateError(f"{api.__name__} is a class: pass an object of it, {api.__name__}().")
    if not isinstance(api, LitAPI):
        raise ConfigTypeError(f"lit_api={api!r:.80} is not accepted: it takes a LitAPI, or a list of them.")
    return api
