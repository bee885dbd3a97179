"""Requests to try an API with: the one that a user gives, else one that its protocol tells, else one made from a schema."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leyden.core.errors import ConfigError, NotFoundError, closest, listed
from leyden.serve.codec import BYTES, JSON
from leyden.serve.config import ApiConfig
from leyden.serve.front.documents import schema_of
from leyden.serve.typed import name_of

_DEPTH = 12
_TEXTS = {
    "date": "2024-02-29",
    "time": "12:30:00",
    "date-time": "2024-02-29T12:30:00Z",
    "duration": "PT1S",
    "uuid": "7f1f9d9e-2f40-4f5c-9d3c-3a1c5a9e0b11",
    "email": "somebody@example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


class Sample(NamedTuple):
    """A request.

    Args:
        path: Where to.
        body: Its bytes.
        content_type: What they are.
        origin: Where it comes from, in words.
        is_made_up: Whether nobody says that the API can answer it.
    """

    path: str
    body: bytes
    content_type: str
    origin: str
    is_made_up: bool = False


def read_inputs(texts: Sequence[str], paths: Sequence[str]) -> dict[str, Sample]:
    """Return the requests that a user gives, by path.

    Args:
        texts: Each `[PATH=]JSON` or `[PATH=]@FILE`.
        paths: Where APIs answer; the first one is meant where only one API is there.

    Raises:
        ConfigError: A text is no JSON, or does not say which of several paths it is for.
        NotFoundError: There is no such path or file.
    """
    found = dict[str, Sample]()
    for text in texts:
        path, value = _split(text, paths)
        if path in found:
            raise ConfigError(f"--input is given twice for {path}: one request is tried for each path.")
        found[path] = Sample(path, *_body(value), "as given by --input")
    return found


def sample_of(api: ApiConfig) -> Sample | None:
    """Return a request that an API may be expected to answer; `None` if there is no telling."""
    if api.spec is not None:
        known = api.spec.sample_request()
        return None if known is None else Sample(known[0], _json(known[1]), JSON, f"as clients of {type(api.spec).__name__} send it")
    if api.input_type is None:
        return None
    parts = dict[str, Any]()
    try:
        value = value_of(schema_of(api.input_type, parts), parts)
    except LookupError:
        return None
    return Sample(api.path, _json(value), JSON, f"made from the schema of {name_of(api.input_type)}", is_made_up=True)


def value_of(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int = 0) -> Any:
    """Return the smallest value that a JSON schema allows, its examples and defaults first.

    Args:
        schema: Of JSON.
        parts: The schemas that it may refer to, by name.
        depth: How deep it stands in others.

    Raises:
        LookupError: The schema does not tell, or has no end.

    Example:
        >>> value_of({"type": "object", "properties": {"x": {"type": "number"}, "note": {"type": "string"}}, "required": ["x"]}, {})
        {'x': 1.0}
    """
    if depth > _DEPTH:
        raise LookupError("a schema without an end")
    if schema.get("examples"):
        return schema["examples"][0]
    for name in ("example", "default", "const"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return value_of(parts[schema["$ref"].rpartition("/")[2]], parts, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return value_of(_first(schema[name]), parts, depth + 1)
    return _plain(schema, parts, depth)


def _first(choices: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((each for each in choices if each.get("type") != "null"), choices[0])


def _plain(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    make = _KINDS.get(str(kind))
    if make is None:
        raise LookupError("a schema that allows anything")
    return make(schema, parts, depth)


def _object(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return the fields that are required, and those that have an example."""
    fields = schema.get("properties", {})
    wanted = [*schema.get("required", ()), *(name for name, field in fields.items() if field.get("examples"))]
    return {name: value_of(fields.get(name, {}), parts, depth + 1) for name in dict.fromkeys(wanted)}


def _items(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int) -> list[Any]:
    if schema.get("prefixItems"):
        return [value_of(each, parts, depth + 1) for each in schema["prefixItems"]]
    item = schema.get("items")
    if not isinstance(item, Mapping) or not item:
        raise LookupError("a list of anything")
    return [value_of(item, parts, depth + 1)] * max(1, schema.get("minItems", 1))


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("pattern"):
        raise LookupError("a text of a pattern")
    known = _TEXTS.get(schema.get("format", ""))
    if known is not None:
        return known
    text = "text".ljust(schema.get("minLength", 0), "t")
    return text[: schema.get("maxLength", len(text))]


def _number(schema: Mapping[str, Any], *, is_whole: bool) -> float:
    low, high = (schema.get(name, schema.get(f"exclusive{name.title()}")) for name in ("minimum", "maximum"))
    step = schema.get("multipleOf", 1)
    near = [low, (low // step + 1) * step, low + step / 2] if low is not None else []
    near += [high, -(-high // step + 1) * step, high - step / 2] if high is not None else []
    choices = [step, 0, *near, *([(low + high) / 2] if low is not None and high is not None else [])]
    for each in choices:
        if _fits(each, schema) and (not is_whole or each == int(each)):
            return each
    raise LookupError("a number between narrow limits")


def _fits(number: float, schema: Mapping[str, Any]) -> bool:
    return (
        schema.get("minimum", -math.inf) <= number <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < number < schema.get("exclusiveMaximum", math.inf)
        and number % schema.get("multipleOf", number or 1) == 0
    )


_KINDS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], Any]] = {
    "object": _object,
    "array": _items,
    "string": lambda schema, parts, depth: _text(schema),
    "integer": lambda schema, parts, depth: int(_number(schema, is_whole=True)),
    "number": lambda schema, parts, depth: float(_number(schema, is_whole=False)),
    "boolean": lambda schema, parts, depth: True,
    "null": lambda schema, parts, depth: None,
}


def _split(text: str, paths: Sequence[str]) -> tuple[str, str]:
    if text.startswith("/"):
        path, _, rest = text.partition("=")
        if path not in paths:
            raise NotFoundError(f"--input {text[:80]!r}: no API answers at {path!r}.{closest(path, paths)} There are: {listed(paths)}.")
        return path, rest
    if len(paths) > 1:
        raise ConfigError(f"--input {text[:80]!r} does not say which API it is for. Write --input '{paths[0]}={text[:80]}'.")
    return paths[0], text


def _body(text: str) -> tuple[bytes, str]:
    if text.startswith("@"):
        path = Path(text[1:])
        if not path.is_file():
            raise NotFoundError(f"--input {text!r}: there is no file {str(path)!r}.")
        data = path.read_bytes()
        return data, JSON if _is_json(data) else BYTES
    if not _is_json(text):
        raise ConfigError(f"--input {text[:80]!r} is no JSON. Write it as in --input '{{\"input\": 4.0}}', or --input @FILE.")
    return text.encode(), JSON


def _is_json(data: str | bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
