"""Which arguments an object under construction was given: read from the frames of its `__init__` methods.

A subclass's `__init__` calls its parent's, so an object's own frames lie one above the other on the stack. They are told
by the object itself, their first argument, so whatever lies between them (a decorator's wrapper) does no harm.
"""

import dataclasses
import inspect
from types import CodeType, FrameType
from typing import Any


def init_arguments(obj: Any, frame: FrameType | None) -> dict[str, Any]:
    """Return name → present value of the arguments that `obj` is being built with.

    What the outermost subclass was given overrides what it passed on. `**kwargs` are flattened, `*args` have no names and
    are left out. A dataclass's are its init fields.

    Args:
        obj: The object.
        frame: Where to look: in this frame and in those that called it.
    """
    if dataclasses.is_dataclass(obj):
        return {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj) if field.init}
    found: dict[str, Any] = {}
    while frame is not None:
        if _is_init_of(obj, frame):
            found.update(_arguments(frame))
        frame = frame.f_back
    return found


def _is_init_of(obj: Any, frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is obj


def _arguments(frame: FrameType) -> dict[str, Any]:
    code, local = frame.f_code, frame.f_locals
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    found = {name: local[name] for name in names if name in local}
    keywords = _keywords_name(code)
    return found | dict(local.get(keywords) or {}) if keywords else found


def _keywords_name(code: CodeType) -> str | None:
    """Return what `**kwargs` is called, if the function has it."""
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    has_varargs = bool(code.co_flags & inspect.CO_VARARGS)
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount + has_varargs]
