"""`HookPlan`: what a LitAPI's hooks are (sync, async, generators), what they want, and what they take. Found out once.

`inspect.signature` costs as much as a small model's prediction, so nobody asks on the way.
"""

import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

HOOKS = ("decode_request", "batch", "predict", "unbatch", "encode_response")
CONTEXT = "context"
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_UNTYPED = ("Request", "Any", "dict")  # they say that nothing is validated


class Form(enum.Enum):
    """How a function answers."""

    SYNC = "a function"
    ASYNC = "an async function"
    GENERATOR = "a generator"
    ASYNC_GENERATOR = "an async generator"

    @property
    def is_async(self) -> bool:
        """Whether it runs in an event loop."""
        return self in {Form.ASYNC, Form.ASYNC_GENERATOR}

    @property
    def yields(self) -> bool:
        """Whether it gives one thing after another."""
        return self in {Form.GENERATOR, Form.ASYNC_GENERATOR}


class InputKind(enum.Enum):
    """What `decode_request` takes."""

    ANY = "JSON or a form"
    RAW = "the bytes of the body"
    TYPED = "a validated object"


class Hook(NamedTuple):
    """One hook.

    Args:
        form: How it answers.
        wants_context: Whether it has an argument `context`.
        is_own: Whether the user wrote it; else it is the default.
        keywords: Its further arguments, beside the first one and `context`.
    """

    form: Form
    wants_context: bool
    is_own: bool
    keywords: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HookPlan:
    """All hooks of an API.

    Args:
        decode_request: Makes an input of a request.
        batch: Makes one input of several.
        predict: The model.
        unbatch: Takes an output apart.
        encode_response: Makes an answer of an output.
        input: What `decode_request` takes.
        input_type: The class that it names, of typed input; or a list, a union and the like of such classes.
        output_type: The class of the answer that `encode_response` names, for the documentation; `None` if it names none.
        formats_pieces: Whether `format_encoded_response` is its own.
    """

    decode_request: Hook
    batch: Hook
    predict: Hook
    unbatch: Hook
    encode_response: Hook
    input: InputKind = InputKind.ANY
    input_type: Any = None
    output_type: Any = None
    formats_pieces: bool = True

    def hooks(self) -> Mapping[str, Hook]:
        """Return the hooks by name."""
        return {name: getattr(self, name) for name in HOOKS}

    @property
    def wants_context(self) -> bool:
        """Whether any hook does: then the headers travel with the request."""
        return any(hook.wants_context for hook in self.hooks().values())


def plan_of(api: Any, base: type) -> HookPlan:
    """Return what an object's hooks are.

    Args:
        api: Has the hooks as methods.
        base: The class whose methods are the defaults.
    """
    hooks = {name: _hook(getattr(api, name), getattr(base, name, None)) for name in HOOKS}
    kind, wanted = _input(api.decode_request)
    formats = _is_own(getattr(api, "format_encoded_response", None), getattr(base, "format_encoded_response", None))
    return HookPlan(**hooks, input=kind, input_type=wanted, output_type=_output(api.encode_response), formats_pieces=formats)


def form_of(function: Callable[..., Any]) -> Form:
    """Return how a function answers, whatever it is wrapped in.

    Example:
        >>> form_of(lambda: 1), form_of(functools.partial(print))
        (<Form.SYNC: 'a function'>, <Form.SYNC: 'a function'>)
    """
    plain = _plain(function)
    if inspect.isasyncgenfunction(plain):
        return Form.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(plain):
        return Form.ASYNC
    return Form.GENERATOR if inspect.isgeneratorfunction(plain) else Form.SYNC


def _hook(method: Callable[..., Any], default: Any) -> Hook:
    parameters = _parameters(method)
    keywords = tuple(name for name, each in list(parameters.items())[1:] if name != CONTEXT and each.kind in _NAMED)
    return Hook(form_of(method), CONTEXT in parameters, _is_own(method, default), keywords)


def _is_own(method: Any, default: Any) -> bool:
    return getattr(method, "__func__", method) is not default


def _plain(function: Any) -> Any:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__func__"):
            function = function.__func__
        elif not inspect.isroutine(function) and callable(function):
            return type(function).__call__
        else:
            return inspect.unwrap(function)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def misfit(method: Callable[..., Any], hook: Hook) -> str:
    """Return why a hook cannot be called with what it gets, one argument and maybe the context; nothing if it can.

    Example:
        >>> misfit(lambda x, size: x, Hook(Form.SYNC, wants_context=False, is_own=True))
        "missing a required argument: 'size'"
    """
    try:
        inspect.signature(method).bind(None, **({CONTEXT: None} if hook.wants_context else {}))
    except TypeError as error:
        return str(error)
    except ValueError:  # written in C, and without a signature
        return ""
    return ""


def _hint(function: Any, name: str) -> Any:
    """Return the type that an argument is annotated with, or its text if that is no name here; `None` without annotation.

    One annotation is looked at by itself: another one may name what only type checkers import.
    """
    plain = _plain(function)
    try:
        written = getattr(plain, "__annotations__", {}).get(name)
    except NameError:  # from Python 3.14 on, where annotations are not looked at before somebody asks
        return None
    alone: Any = types.SimpleNamespace(__annotations__={name: written})
    try:
        local = dict(inspect.getclosurevars(plain).nonlocals)
        return typing.get_type_hints(alone, getattr(plain, "__globals__", {}), local).get(name)
    except Exception:  # noqa: BLE001 - whatever stands in an annotation of the user's
        return written


def _input(decode: Callable[..., Any]) -> tuple[InputKind, Any]:
    """Return what the first argument of `decode_request` is annotated to be."""
    names = [name for name in _parameters(decode) if name != CONTEXT]
    wanted = _hint(decode, names[0]) if names else None
    if isinstance(wanted, str) and wanted.rpartition(".")[2] not in _UNTYPED:
        warnings.warn(
            f"decode_request({names[0]}: {wanted}) gets JSON or a form as it is: {wanted!r} is no name at run time. Import it outside "
            "`if TYPE_CHECKING`, at the top of the module.",
            UserWarning,
            stacklevel=2,
        )
    if wanted is bytes:
        return InputKind.RAW, None
    return (InputKind.TYPED, wanted) if is_typed(wanted) or is_made_of_typed(wanted) else (InputKind.ANY, None)


def _output(encode: Callable[..., Any]) -> Any:
    found = _hint(encode, "return")
    return found if is_typed(found) else None


def is_typed(kind: Any) -> bool:
    """Return whether values of a class are validated: pydantic models, dataclasses, `msgspec.Struct` and `TypedDict`.

    Example:
        >>> is_typed(typing.TypedDict("Point", {"x": float})), is_typed(dict), is_typed(None)
        (True, False, False)
    """
    if not isinstance(kind, type) and not typing.is_typeddict(kind):
        return False
    pydantic, msgspec = sys.modules.get("pydantic"), sys.modules.get("msgspec")
    return (
        dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or (pydantic is not None and issubclass(kind, pydantic.BaseModel))
        or (msgspec is not None and issubclass(kind, msgspec.Struct))
    )


def is_made_of_typed(kind: Any) -> bool:
    """Return whether an annotation is a union, a list or the like of classes whose values are validated.

    Example:
        >>> Point = typing.TypedDict("Point", {"x": float})
        >>> is_made_of_typed(list[Point]), is_made_of_typed(Point | None), is_made_of_typed(list[float])
        (True, True, False)
    """
    return typing.get_origin(kind) is not None and any(is_typed(each) or is_made_of_typed(each) for each in typing.get_args(kind))
