"""Values become what a hook is annotated with: pydantic models, dataclasses, `msgspec.Struct`, `TypedDict`.

Mistakes come as FastAPI lists them, whichever library found them: `type`, `loc`, `msg`, and `input` where that is short.
"""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from leyden.core.errors import ConfigError
from leyden.core.lazy import Later
from leyden.serve.faults import Fault
from leyden.serve.hooks import is_made_of_typed

MAX_MISTAKES = 100
_SHORT = 1000  # characters and items: an answer of ours is not as long as a body
_SEQUENCES: tuple[type, ...] = (list, tuple, set, frozenset, Sequence, AbstractSet)
_ITEMS: tuple[type, ...] = (list, tuple)
_SIZED: tuple[type, ...] = (str, bytes, dict, *_ITEMS)
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_UNIONS: tuple[Any, ...] = (typing.Union, types.UnionType)
_PLACE = re.compile(r" - at `(?:key in )?\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|(\[\.\.\.\])|\.([^.\[]+)")
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_MODULES = re.compile(r"(?:\w+\.|<locals>\.)+")
_msgspec: Any = Later("msgspec")


def validated(value: Any, wanted: Any, *, is_form: bool = False) -> Any:
    """Return a value as the class that a hook names.

    Args:
        value: What JSON or a form was read to.
        wanted: The class.
        is_form: Whether texts may stand for numbers, and one value for a list of one, as in forms.

    Raises:
        Fault: 422, with a list of what is wrong where, as FastAPI gives it.

    Example:
        >>> import dataclasses
        >>> Point = dataclasses.make_dataclass("Point", [("x", float)])
        >>> validated({"x": "1.5"}, Point, is_form=True)
        Point(x=1.5)
    """
    if is_form and isinstance(value, Mapping):
        value = _with_lists(value, wanted)
    if is_pydantic(wanted):
        return _by_pydantic(value, wanted)
    try:
        made = _msgspec.convert(value, wanted, strict=not is_form, dec_hook=_inner)
    except _msgspec.ValidationError as error:
        raise _unfit([_mistake(str(error), value)]) from None
    if dataclasses.is_dataclass(wanted) or is_made_of_typed(wanted):
        _fill(made)
    return made


def checked_type(wanted: Any, hook: str = "decode_request") -> None:
    """Refuse a class that can never be validated, before a request is.

    Raises:
        ConfigError: Its fields are of kinds that cannot be told apart, or are not known.
    """
    if is_pydantic(wanted) and isinstance(wanted, type):
        return
    try:
        if is_pydantic(wanted):
            _adapter(wanted)
        else:
            _msgspec.json.Decoder(wanted, dec_hook=_inner)  # looks at all fields
    except (TypeError, NameError, RuntimeError) as error:  # pydantic's are RuntimeErrors or TypeErrors
        raise ConfigError(
            f"{hook}() takes a {name_of(wanted)}, which cannot be validated: {error}. Change its fields, or annotate with a pydantic model."
        ) from error


def is_pydantic(kind: Any) -> bool:
    """Return whether a class is a model or a dataclass of pydantic, or something is made of one, without importing that."""
    if typing.get_origin(kind) is not None:
        return any(is_pydantic(each) for each in typing.get_args(kind))
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def name_of(kind: Any) -> str:
    """Return an annotation as a reader would write it.

    Example:
        >>> name_of(int), name_of(list[Fault] | None)
        ('int', 'list[Fault] | None')
    """
    return kind.__name__ if typing.get_origin(kind) is None else _MODULES.sub("", str(kind))


def _by_pydantic(value: Any, wanted: Any) -> Any:
    import pydantic  # wanted is a class of it, or made of one

    try:
        if isinstance(wanted, type) and issubclass(wanted, pydantic.BaseModel):
            return wanted.model_validate(value, from_attributes=True)  # as FastAPI does: the mistakes read alike
        return _adapter(wanted).validate_python(value, from_attributes=True)
    except pydantic.ValidationError as error:
        raise _unfit([{**each, "loc": ["body", *each["loc"]]} for each in error.errors(include_url=False)[:MAX_MISTAKES]]) from None


@functools.cache
def _adapter(wanted: Any) -> Any:
    import pydantic  # wanted is a class of it, or made of one

    return pydantic.TypeAdapter(wanted)


def _inner(kind: Any, value: Any) -> Any:
    """Return a field of a class that msgspec does not know."""
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    if not is_pydantic(kind):
        raise ValueError(f"Expected `{getattr(kind, '__name__', kind)}`, got `{type(value).__name__}`")
    try:
        return _by_pydantic(value, kind)
    except Fault as fault:
        raise ValueError(fault.message.removeprefix("body.")) from None


def _fill(value: Any) -> None:
    """Give dataclasses their defaults as attributes of their own: msgspec leaves them to the class, and then does not write them."""
    if dataclasses.is_dataclass(value):
        own = getattr(value, "__dict__", {})
        for field in dataclasses.fields(value):
            own.setdefault(field.name, getattr(value, field.name))
        value = own
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, _ITEMS) else ()
    for each in typing.cast("Sequence[Any]", inner):
        if type(each) not in _ATOMS:
            _fill(each)


def _mistake(text: str, value: Any) -> dict[str, Any]:
    """Return what msgspec says as FastAPI would."""
    place = _PLACE.search(text)
    steps = [int(index) if index else dots or name for index, dots, name in _STEP.findall(place[1] if place else "")]
    text = text[: place.start()] if place else text
    missing = _MISSING.fullmatch(text)
    for step in steps:
        if (isinstance(value, Mapping) and step in value) or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
        else:
            break
    if missing:
        return {"type": "missing", "loc": ["body", *steps, missing[1]], "msg": "Field required", "input": value}
    return {"type": "invalid", "loc": ["body", *steps], "msg": text, "input": value}


def _unfit(mistakes: list[dict[str, Any]]) -> Fault:
    first = mistakes[0]
    shown = [{name: _msgspec.to_builtins(part, enc_hook=str) for name, part in each.items() if _is_short(part)} for each in mistakes]
    return Fault(422, "request.invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}", detail=shown)


def _is_short(value: Any) -> bool:
    waiting, left = [value], _SHORT
    while waiting:
        each = waiting.pop()
        left -= 1 + (len(each) if isinstance(each, _SIZED) else 0)
        if left < 0:
            return False
        if isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, _ITEMS):
            waiting += typing.cast("Sequence[Any]", each)
    return True


def _with_lists(form: Mapping[str, Any], wanted: Any) -> dict[str, Any]:
    """Return a form whose fields are lists where the class has lists: one value of a name does not show that."""
    try:
        hints = typing.get_type_hints(wanted)
    except (NameError, TypeError):
        hints = dict[str, Any]()
    return {name: [value] if _is_many(hints.get(name)) and not isinstance(value, list) else value for name, value in form.items()}


def _is_many(kind: Any) -> bool:
    choices = typing.get_args(kind) if typing.get_origin(kind) in _UNIONS else (kind,)
    return any((typing.get_origin(each) or each) in _SEQUENCES for each in choices)
