"""`client.py`, which `LitServer.run` leaves beside a server: the shortest program that asks its first API something."""

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from leyden.core.lazy import Later
from leyden.serve.config import ApiConfig, ServerConfig

_samples: Any = Later("leyden.serve.command.samples")
_INPUT: Final = {"input": 4.0}


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
    sample = _samples.sample_of(api)
    return api.path, _INPUT if sample is None else json.loads(sample.body)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _written(value: Any) -> str:
    """Return a JSON value as Python, in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)}: {_written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value)
