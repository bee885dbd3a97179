"""`client.py`, which `LitServer.run` leaves beside a server: the shortest program that asks its first API something."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from leyden.core.lazy import Later
from leyden.serve.config import ApiConfig, ServerConfig

_documents: Any = Later("leyden.serve.front.documents")
_INPUT: Final = {"input": 4.0}
_PLAIN: Final = {"string": "text", "integer": 1, "number": 4.0, "boolean": True}
_DEEPEST = 8  # classes that hold themselves


def write_client(url: str, config: ServerConfig, folder: Path | None = None) -> None:
    """Write `client.py`, unless there is one.

    Args:
        url: Where the server is.
        config: The server.
        folder: Where the file goes; the current one by default.
    """
    target = (folder or Path()) / "client.py"
    with contextlib.suppress(OSError):  # a read-only folder: it is a convenience
        if not target.exists():
            target.write_text(source(url, config), encoding="utf-8")


def source(url: str, config: ServerConfig) -> str:
    """Return the program.

    Args:
        url: Where the server is.
        config: The server.

    Example:
        >>> print(source("http://127.0.0.1:8000", ServerConfig()))
        \"\"\"Asks the server something. It is written once: change it as you like.\"\"\"
        <BLANKLINE>
        from leyden.serve import Client
        <BLANKLINE>
        with Client("http://127.0.0.1:8000") as client:
            print(client.predict({"input": 4.0}, "/predict"))
        <BLANKLINE>
    """
    api = config.apis[0]
    path, payload = _asked(api)
    arguments = [_quoted(url)]
    imports = ["from leyden.serve import Client"]
    if config.secrets.api_keys:
        imports = ["import os", "", *imports]
        arguments.append('api_key=os.environ["LEYDEN_SERVE_API_KEY"].split(",")[0].strip()')
    asked = f"{_written(payload)}, {_quoted(path)}"
    if api.is_stream and api.spec is None:
        use = [f"    for item in client.stream({asked}):", "        print(item)"]
    else:
        use = [f"    print(client.predict({asked}))"]
    hint = ["# Of a certificate of your own: Client(…, verify='certificate.pem')"] if url.startswith("https:") else []
    head = ['"""Asks the server something. It is written once: change it as you like."""', "", *imports, "", *hint]
    return "\n".join([*head, f"with Client({', '.join(arguments)}) as client:", *use, ""])


def _asked(api: ApiConfig) -> tuple[str, Any]:
    """Return where a request goes, and what it carries."""
    if api.spec is not None:
        paths = [endpoint.path for endpoint in api.spec.endpoints if "POST" in endpoint.methods]
        return api.spec.sample_request() or (paths[0] if paths else api.path, _INPUT)
    if api.input_type is None:
        return api.path, _INPUT
    parts = dict[str, Any]()
    schema = _documents.schema_of(api.input_type, parts)
    return api.path, sample_of(schema, parts) if schema else _INPUT


def sample_of(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a value that fits a JSON schema, as far as its types go; what may be left out is.

    Args:
        schema: The schema.
        parts: Those it refers to, by name.
        depth: How deep it is in others.

    Example:
        >>> sample_of({"type": "object", "properties": {"n": {"type": "integer"}, "x": {}}, "required": ["n"]}, {})
        {'n': 1}
    """
    if depth > _DEEPEST:
        return None
    for inner in _inner(schema, parts):
        return sample_of(inner, parts, depth + 1)
    for given in ("default", "const"):
        if given in schema:
            return schema[given]
    if choices := schema.get("examples") or schema.get("enum"):
        return choices[0]
    return _of_kind(str(schema.get("type")), schema, lambda part: sample_of(part, parts, depth + 1))


def _inner(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> list[Any]:
    """Return the schemas of which one stands for another."""
    if "$ref" in schema:
        return [parts.get(schema["$ref"].rpartition("/")[2], {})]
    return schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or []


def _of_kind(kind: str, schema: Mapping[str, Any], sample: Callable[[Any], Any]) -> Any:
    if kind == "object":
        return {name: sample(schema.get("properties", {}).get(name, {})) for name in schema.get("required", ())}
    if kind == "array":
        return [sample(schema["items"])] if isinstance(schema.get("items"), dict) else []
    return _PLAIN.get(kind)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _written(value: Any) -> str:
    """Return a JSON value as Python, in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)}: {_written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value)
