"""Checks a server as far as one process can: its routes, the setup of each API, a request to each."""

import json
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from leyden.serve.api import LitAPI
from leyden.serve.command.samples import Sample, sample_of
from leyden.serve.command.trial import Answer, attempt
from leyden.serve.config import ApiConfig
from leyden.serve.front.routes import why_not_hot
from leyden.serve.hooks import InputKind, plan_of
from leyden.serve.server import LitServer
from leyden.serve.supervisor import Replicas
from leyden.serve.typed import name_of

_SHOWN = 120
_HEAD = ("path", "methods", "way", "stream", "batch", "body", "workers")


class Route(NamedTuple):
    """Where an API answers.

    Args:
        path: There.
        methods: Of HTTP.
        why_not_hot: Why its requests go through all of ASGI; empty if they take the short way.
        stream: Whether it answers in pieces.
        batch: The most requests of a batch, and the seconds that the first one may wait.
        body: What it takes, in words.
        workers: How many processes it has.
    """

    path: str
    methods: tuple[str, ...]
    why_not_hot: str
    stream: bool
    batch: tuple[int, float]
    body: str
    workers: str

    def row(self) -> tuple[str, ...]:
        """Return it as a row of the table."""
        size, wait = self.batch
        batch = "no" if size == 1 else f"{size}, {wait * 1000:g} ms" if wait else str(size)
        way = f"not hot: {self.why_not_hot}" if self.why_not_hot else "hot"
        return (self.path, " ".join(self.methods), way, "yes" if self.stream else "no", batch, self.body, self.workers)


class Tried(NamedTuple):
    """An API, tried.

    Args:
        path: Where it answers.
        setup_seconds: How long its setup took; `None` if it failed.
        origin: Where the request came from; empty if none was tried.
        status: Of the answer.
        milliseconds: Until it was there.
        answer: Its beginning.
    """

    path: str
    setup_seconds: float | None = None
    origin: str = ""
    status: int | None = None
    milliseconds: float | None = None
    answer: str = ""

    def line(self) -> str:
        """Return it for people."""
        if self.setup_seconds is None:
            return f"{self.path}: not set up"
        begun = f"{self.path}: set up in {self.setup_seconds:.1f} s"
        if not self.origin:
            return f"{begun}; no request was tried: pass --input '{self.path}=…' with JSON or @FILE"
        return f"{begun}; {self.status} in {self.milliseconds:.1f} ms to a request {self.origin}: {self.answer}"


class Problem(NamedTuple):
    """What went wrong.

    Args:
        message: In one line.
        traceback: Where; empty if the log has it.
    """

    message: str
    traceback: str = ""


class Report(NamedTuple):
    """What was found.

    Args:
        devices: Those that get workers; the first one was used.
        routes: Of the APIs.
        own: Those of the server itself and of the user, as method and path.
        tried: The APIs.
        faults: What went wrong.
    """

    devices: Sequence[Any]
    routes: list[Route]
    own: list[str]
    tried: list[Tried]
    faults: list[Problem]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        routes = [{**route._asdict(), "batch": {"max_size": route.batch[0], "timeout": route.batch[1]}} for route in self.routes]
        return {
            "ok": not self.faults,
            "devices": self.devices,
            "routes": [{**route, "hot": not route["why_not_hot"]} for route in routes],
            "other_routes": self.own,
            "tried": [each._asdict() for each in self.tried],
            "faults": [fault.message for fault in self.faults],
        }

    def lines(self) -> list[str]:
        """Return it for people."""
        rows = [_HEAD, *(route.row() for route in self.routes)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        other = f"also: {', '.join(self.own)}"
        return [*table, other, *(each.line() for each in self.tried), *([] if self.faults else ["all is well"])]


def check(server: LitServer, inputs: Mapping[str, Sample]) -> Report:
    """Look a server over, set its APIs up, and try them.

    Args:
        server: Not running.
        inputs: Requests by path, instead of those that are known or can be made up.
    """
    examined = _Examination(server, inputs)
    for number in range(len(server.config.apis)):
        examined.look_at(number)
    return Report(server.devices, examined.routes, _own(server, examined.routes), examined.tried, examined.faults)


@final
class _Examination:
    """What is found, API by API."""

    def __init__(self, server: LitServer, inputs: Mapping[str, Sample]) -> None:
        self._server, self._inputs, self._app = server, inputs, server.app
        given = server.lit_api
        self._apis = list(given) if isinstance(given, list) else [given]
        self.routes, self.tried, self.faults = list[Route](), list[Tried](), list[Problem]()

    def look_at(self, number: int) -> None:
        """Look at an API, and try it."""
        config, replicas = self._server.config, self._server.replicas[number]
        api = config.apis[number]
        routes = _routes(self._apis[number], api, replicas, why_not_hot(self._app, config, number))
        self.routes += routes
        given = next((self._inputs[route.path] for route in routes if route.path in self._inputs), None)
        sample = given or sample_of(api)
        try:
            outcome = attempt(replicas.specs[0], config, sample)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raises is what is looked for
            told = " ".join("".join(traceback.format_exception_only(error)).split())
            self.faults.append(Problem(f"{api.path} failed: {told}", traceback.format_exc()))
            self.tried.append(Tried(api.path))
            return
        if sample is None or outcome.answer is None:
            self.tried.append(Tried(api.path, outcome.setup_seconds))
            return
        self._note(api.path, sample, outcome.setup_seconds, outcome.answer)

    def _note(self, path: str, sample: Sample, setup_seconds: float, answer: Answer) -> None:
        shown = _shown(answer.body)
        self.tried.append(Tried(path, setup_seconds, sample.origin, answer.status, round(answer.seconds * 1000, 3), shown))
        is_refused = 400 <= answer.status < 500
        if answer.status < 400 and answer.is_whole:
            return
        if sample.is_made_up and is_refused:
            return  # it is told; a value that nobody gave may well be wrong
        what = "breaks off in the middle of its answer" if answer.status < 400 else f"answers {answer.status}"
        hint = f" Pass --input '{sample.path}=…' to try another one." if sample.is_made_up else ""
        request = sample.body.decode("utf-8", "replace")[:_SHOWN]
        self.faults.append(Problem(f"{sample.path} {what} to the request {request} ({sample.origin}): {_message(answer)}{hint}"))


def _routes(api: LitAPI, config: ApiConfig, replicas: Replicas, why_not: str) -> list[Route]:
    policy = replicas.autoscale
    workers = str(replicas.count) if policy is None else f"{replicas.count} ({policy.min_replicas} to {policy.max_replicas})"
    batch = (config.max_batch_size, config.batch_timeout)
    if config.spec is None:
        return [Route(config.path, ("POST",), why_not, config.is_stream, batch, _body_of(api, config), workers)]
    methods = dict[str, tuple[str, ...]]()
    kinds = dict[str, str]()
    for endpoint in config.spec.endpoints:
        methods[endpoint.path] = (*methods.get(endpoint.path, ()), *endpoint.methods)
        if "POST" in endpoint.methods:
            kinds[endpoint.path] = "JSON" if endpoint.request_type is None else endpoint.request_type.__name__
    return [Route(path, names, why_not, config.is_stream, batch, kinds.get(path, "-"), workers) for path, names in methods.items()]


def _body_of(api: LitAPI, config: ApiConfig) -> str:
    return (
        name_of(config.input_type)
        if config.input_type is not None
        else {
            InputKind.ANY: "JSON or a form",
            InputKind.RAW: "bytes",
        }[plan_of(api, LitAPI).input]
    )


def _own(server: LitServer, routes: Sequence[Route]) -> list[str]:
    """Return the routes that are no API's, each once."""
    taken = {route.path for route in routes}
    found = dict[str, str]()
    for route in server.app.router.routes:
        path = getattr(route, "path", "")
        if path not in taken:
            method = next(iter(sorted(getattr(route, "methods", None) or ["any"])))
            found.setdefault(path, f"{method} {path}")
    return list(found.values())


def _message(answer: Answer) -> str:
    """Return what an error says, from the formats in which it may say it."""
    lines = answer.body.decode("utf-8", "replace").strip().splitlines()
    try:
        told = json.loads(lines[-1].removeprefix("data: ")) if lines else None
    except ValueError:
        return _shown(answer.body)
    if isinstance(told, dict):
        inner = told.get("error")
        found = told.get("message") or (inner.get("message") if isinstance(inner, dict) else inner) or told.get("detail")
        if isinstance(found, str):
            return " ".join(found.split())
    return _shown(answer.body)


def _shown(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
