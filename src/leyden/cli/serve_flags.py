"""The options of `leyden serve`: each is an argument of `LitServer` or of its `run`, spelled with dashes.

These tables are the one place where they are written; a test compares them with the signatures. They are not read from those,
because `leyden serve --help` must not import a server. An option that is not given leaves the file's argument as it is.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SWITCH = "switch"  # on and off: --name, --no-name


class Flag(NamedTuple):
    """An option.

    Args:
        name: Of the argument.
        kind: Makes its value of a text; `SWITCH` for one that takes none.
        help: What it means.
        default: What holds if neither the option nor the file says anything, as it is shown.
    """

    name: str
    kind: Callable[[str], Any] | str
    help: str
    default: str = ""


def value(text: str) -> Any:
    """Return JSON, numbers with commas between them, or the text itself.

    Example:
        >>> value("2"), value("auto"), value("0,1"), value("[[0, 1]]")
        (2, 'auto', [0, 1], [[0, 1]])
    """
    try:
        return json.loads(text)
    except ValueError:
        parts = [part for part in text.split(",") if part.strip()]
        return [int(part) for part in parts] if "," in text and all(part.strip().isdecimal() for part in parts) else text


def seconds(text: str) -> float | bool:
    """Return seconds; `off` is `False`.

    Example:
        >>> seconds("2.5"), seconds("off")
        (2.5, False)
    """
    return False if text == "off" else float(text)


SERVER = (
    Flag("accelerator", str, "cpu, cuda, mps, gpu, or auto for the best there is", "auto"),
    Flag("devices", value, "how many devices get workers, auto for all, or ids such as 0,1", "auto"),
    Flag("workers_per_device", value, 'worker processes on each device: a number, 2,1 in the order of the APIs, or {"/path": 2}', "1"),
    Flag("timeout", seconds, "seconds that a request may wait until its computation starts, or off", "30"),
    Flag("deadline", seconds, "seconds for waiting and computation, or off", "off"),
    Flag("max_queue_size", value, "requests of an API that may wait; auto refuses what would wait longer than --timeout", "auto"),
    Flag("max_payload_size", value, "the most bytes of a request, such as 10MB; -1 for no limit", "100MB"),
    Flag("max_inflight_bytes", value, "bytes of all requests that are held, such as 1GB", "1GB"),
    Flag("restart_workers", SWITCH, "whether dead workers are started again; else the server ends with status 1", "on"),
    Flag("drain_timeout", float, "seconds for what is there when the server stops", "30"),
    Flag("drain_delay", float, "seconds between not ready and no new connections", "0"),
    Flag("kill_after", seconds, "seconds after which a worker is killed that goes on with what nobody waits for, or off", "off"),
    Flag("header_timeout", float, "seconds that the head of a request may take", "10"),
    Flag("body_timeout", float, "seconds that its body may take", "60"),
    Flag("keep_alive", float, "seconds that a connection may be idle", "75"),
    Flag("healthcheck_path", str, "where the server says whether all workers are ready", "/health"),
    Flag("info_path", str, "where it says what it is", "/info"),
    Flag("enable_shutdown_api", SWITCH, "whether a request with the shutdown key stops it", "off"),
    Flag("shutdown_path", str, "where", "/shutdown"),
    Flag("model_metadata", value, "what the server says of the model, as JSON"),
    Flag("track_requests", SWITCH, "whether requests that are not answered yet are counted", "off"),
    Flag("disable_openapi_url", SWITCH, "leave out /docs and /openapi.json", "off"),
    Flag("expose_errors", SWITCH, "whether answers say what went wrong in a hook", "on"),
    Flag("compression", str, "auto compresses large answers for clients that accept it; off", "auto"),
)
RUN = (
    Flag("host", str, "0.0.0.0, 127.0.0.1, :: or unix:/path", "0.0.0.0"),  # noqa: S104 - the documented default
    Flag("port", int, "1024 to 65535; 0 takes a free one, and prints it", "8000"),
    Flag("num_api_servers", int, "processes that speak HTTP", "one for four workers"),
    Flag("log_level", str, "debug, info, warning, error or critical", "info"),
    Flag("pretty_logs", SWITCH, "whether the log is written in colours", "off"),
    Flag("generate_client_file", SWITCH, "whether client.py is written, unless there is one", "on"),
)
UVICORN = (
    Flag("access_log", SWITCH, "a line in the log for each request", "on"),
    Flag("proxy_headers", SWITCH, "whether a proxy that is trusted may say who the client is", "on"),
    Flag("forwarded_allow_ips", str, "proxies that are trusted, with commas between them; * trusts all", "127.0.0.1"),
    Flag("root_path", str, "the path below which a proxy shows this server", "none"),
    Flag("ssl_certfile", str, "the certificate, a PEM file"),
    Flag("ssl_keyfile", str, "its private key, a PEM file"),
    Flag("ssl_keyfile_password", str, "what opens that key"),
)
WITHOUT = {
    "lit_api": "it is in the file",
    **dict.fromkeys(("spec", "callbacks", "middlewares", "loggers", "loop"), "an object: it is made in the file"),
    **dict.fromkeys(("max_batch_size", "batch_timeout", "stream", "api_path"), "an argument of LitAPI, of which a server may have several"),
    **dict.fromkeys(("fast_queue", "api_server_worker_type"), "without effect"),
    "uvicorn_kwargs": "those that are useful are in UVICORN",
}


def add_flags(parser: Any, title: str, *tables: tuple[Flag, ...]) -> None:
    """Add options to a parser, as a group of its help.

    Args:
        parser: Of argparse.
        title: Of the group.
        tables: The options.
    """
    group = parser.add_argument_group(title)
    for flag in (flag for table in tables for flag in table):
        spelling = f"--{flag.name.replace('_', '-')}"
        text = (f"{flag.help}; by default {flag.default}" if flag.default else flag.help).replace("%", "%%")
        if flag.kind == SWITCH:
            group.add_argument(spelling, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            group.add_argument(spelling, type=flag.kind, default=argparse.SUPPRESS, metavar=flag.name.upper(), help=text)


def given(args: argparse.Namespace, *tables: tuple[Flag, ...]) -> Mapping[str, Any]:
    """Return the arguments of those options that the user gave."""
    there = vars(args)
    return {flag.name: there[flag.name] for table in tables for flag in table if flag.name in there}
