"""What OpenAPI says of an API: the schemas of its typed bodies, whichever library defines them."""

import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from leyden.serve.config import ApiConfig
from leyden.serve.typed import is_pydantic

_REF = "#/components/schemas/"
_STREAMS: Mapping[str, tuple[str, ...]] = {
    "auto": ("application/x-ndjson", "text/plain", "text/event-stream"),
    "ndjson": ("application/x-ndjson",),
    "text": ("text/plain",),
    "sse": ("text/event-stream",),
}


def operation(config: ApiConfig, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return what stands in OpenAPI of an API's route.

    Args:
        config: The API.
        schemas: Gets the schemas that it refers to.
    """
    wanted = schema_of(config.input_type, schemas) if config.input_type is not None else {}
    kinds = _STREAMS[config.stream_format] if config.is_stream else ("application/json",)
    given = schema_of(config.output_type, schemas) if config.output_type is not None and not config.is_stream else {}
    return {
        "summary": config.name,
        "operationId": f"post {config.path}",
        **({"description": config.description} if config.description else {}),
        "requestBody": {"required": True, "content": {"application/json": {"schema": wanted}}},
        "responses": {"200": {"description": "The answer.", "content": {kind: {"schema": given} for kind in kinds}}},
    }


def schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a class, and put those that it is made of into `schemas`.

    Example:
        >>> schema_of(msgspec.defstruct("Point", [("x", float)]), found := {})
        {'$ref': '#/components/schemas/Point'}
        >>> found["Point"]["required"]
        ['x']
    """
    try:
        if is_pydantic(kind):
            return _by_pydantic(kind, schemas)
        (schema,), parts = msgspec.json.schema_components((kind,), ref_template=_REF + "{name}")
    except Exception:  # noqa: BLE001 - fields that no schema can say: the documentation is silent, the API works
        return {}
    schemas.update(parts)
    return schema


def _by_pydantic(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    import pydantic  # kind is a class of it, or made of one

    schema = pydantic.TypeAdapter(kind).json_schema(ref_template=_REF + "{model}")
    schemas.update(schema.pop("$defs", {}))
    if not isinstance(kind, type) or typing.get_origin(kind) is not None:
        return schema
    schemas[kind.__name__] = schema
    return {"$ref": _REF + kind.__name__}
