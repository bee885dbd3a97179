"""From what users write to what a server is: APIs and arguments become a `ServerConfig` and what each worker is to be."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.api import LitAPI, made
from leyden.serve.arguments import checked_path, checked_paths, workers_for
from leyden.serve.callbacks.callback import Callback
from leyden.serve.config import ApiConfig
from leyden.serve.devices import Device, choose_accelerator, device_list, present_devices
from leyden.serve.hooks import HookPlan
from leyden.serve.loading import replacements
from leyden.serve.log_routes import LogRoutes
from leyden.serve.logger_process import LoggerProcess
from leyden.serve.loggers import Logger, loggers_of
from leyden.serve.loggers import packed as packed_loggers
from leyden.serve.mcp import PATH, checked_mcp
from leyden.serve.specs.base import checked_spec
from leyden.serve.supervisor import Replicas
from leyden.serve.worker import WorkerSpec, packed

_OWN = {
    "/": "the server's answer to probes",
    "/docs": "the documentation",
    "/openapi.json": "the documentation",
    "/metrics": "the metrics",
    "/health/live": "the health of the server",
    "/health/ready": "the health of the server",
    "/health/startup": "the health of the server",
}
_OLD = ("max_batch_size", "batch_timeout", "stream", "api_path", "loop", "spec")


def apis_of(given: Any, old: Mapping[str, Any]) -> list[LitAPI]:
    """Return the APIs of a server.

    Args:
        given: One, or several.
        old: Arguments that belong to the API since long: they are written onto it, with a warning.

    Raises:
        ConfigTypeError: It is no API.
        ConfigError: There is none, or one stands twice, or an old argument is meant for several.
    """
    apis = [made(api) for api in given] if isinstance(given, Sequence) and not isinstance(given, str) else [made(given)]
    if not apis:
        raise ConfigError("lit_api=[] is empty: a server needs one LitAPI at least.")
    if len({id(api) for api in apis}) < len(apis):
        raise ConfigError("lit_api holds the same object twice: make one for each path.")
    for name, value in old.items():
        warnings.warn(f"LitServer({name}=…) is deprecated: pass it to LitAPI({name}=…).", DeprecationWarning, stacklevel=4)
        if len(apis) > 1:
            raise ConfigError(f"LitServer({name}=…) does not say which of {len(apis)} APIs it is for: pass it to LitAPI({name}=…).")
        _write(apis[0], name, value)
    return apis


def given_old(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the old arguments that were given; `batch_timeout` and `stream` have defaults that mean nothing."""
    unset: dict[str, Any] = {"batch_timeout": 0.0, "stream": False}
    return {name: arguments[name] for name in _OLD if arguments[name] != unset.get(name)}


def _write(api: LitAPI, name: str, value: Any) -> None:
    checked = LitAPI(**{name: value})  # raises as the API itself would
    setattr(api, name, getattr(checked, name))


def own_paths(healthcheck_path: str, info_path: str, shutdown_path: str, *, may_shut_down: bool, has_docs: bool) -> dict[str, str]:
    """Return the paths that the server answers itself, and what each is.

    Raises:
        ConfigError: One does not start with `/`.
    """
    found = {path: what for path, what in _OWN.items() if has_docs or not path.startswith(("/docs", "/openapi"))}
    found[checked_path("healthcheck_path", healthcheck_path)] = "healthcheck_path"
    found[checked_path("info_path", info_path)] = "info_path"
    if may_shut_down:
        found[checked_path("shutdown_path", shutdown_path)] = "shutdown_path"
    return found


def check_all(apis: Sequence[LitAPI], timeout: float, own: Mapping[str, str]) -> list[HookPlan]:
    """Return the hooks of each API, after looking for all mistakes that can be seen before a worker starts.

    Raises:
        ConfigError: One was found.
    """
    for api in apis:
        api.request_timeout = timeout
        if api.spec is not None:
            checked_spec(api.spec).pre_setup(api)
        api.pre_setup(api.spec)
    plans = [api.check(timeout) for api in apis]
    tools = {PATH: "the tools of models", f"{PATH}/": "the tools of models"} if any(api.mcp is not None for api in apis) else {}
    checked_paths([path for api in apis for path in _paths_of(api)], {**own, **tools})
    return plans


def checked_loggers(given: Any, apis: Sequence[LitAPI], own: Mapping[str, str]) -> tuple[Logger, ...]:
    """Return the loggers of a server.

    Args:
        given: One, several, or none.
        apis: Of the server.
        own: Path → what the server answers there.

    Raises:
        ConfigTypeError: One is no `Logger`.
        ConfigError: One's app is mounted where something else answers.
    """
    loggers = loggers_of(given)
    taken = {**own, **{path: "a LitAPI" for api in apis for path in _paths_of(api)}}
    taken.pop("/metrics")  # the server's numbers move
    for logger in loggers:
        if logger.mounted is not None and logger.mounted.path in taken:
            path = logger.mounted.path
            raise ConfigError(
                f"{type(logger).__name__} cannot mount its app at {path!r}: {taken[path]} is there. Mount it at another path."
            )
    return loggers


def log_routes(loggers: Sequence[Logger]) -> Callable[[], LogRoutes]:
    """Return what makes, for each run of a server, the way of its workers' values.

    Raises:
        ConfigError: A logger cannot be brought into its process.
    """
    beside = [logger for logger in loggers if logger.mounted is None]
    packed, has_mounted = packed_loggers(beside), len(beside) < len(loggers)
    return lambda: LogRoutes(LoggerProcess(packed) if beside else None, reaches_fronts=has_mounted)


def _paths_of(api: LitAPI) -> list[str]:
    """Return where an API answers: at its own path, or at those of its spec."""
    return [api.api_path] if api.spec is None else list(dict.fromkeys(endpoint.path for endpoint in api.spec.endpoints))


def devices_of(accelerator: str | None, devices: object) -> list[Device]:
    """Return the devices that get workers.

    Raises:
        ConfigError: They are not there.
    """
    present = present_devices(os.environ)
    return device_list(choose_accelerator(accelerator, present), devices, present)


def api_config(api: LitAPI, plan: HookPlan, workers: int, timeout: float) -> ApiConfig:
    """Return what front ends know of an API."""
    kind = type(api)
    return ApiConfig(
        path=api.api_path,
        num_workers=workers,
        max_batch_size=api.max_batch_size,
        batch_timeout=api.batch_timeout,
        timeout=timeout,
        is_stream=api.stream,
        stream_format=api.stream_format,
        max_stream_buffer_bytes=api.max_stream_buffer_bytes,
        is_idempotent=api.idempotent,
        wants_context=plan.wants_context,
        input_type=plan.input_type,
        output_type=plan.output_type,
        authorize=getattr(api, "authorize", None),
        spec=api.spec,
        tool=None if api.mcp is None else checked_mcp(api.mcp).tool(api),
        health=api.health if kind.health is not LitAPI.health else None,
        name=api.api_path.strip("/").replace("/", "_") or kind.__name__,
        description=(kind.__doc__ or "").strip() if kind.__doc__ is not LitAPI.__doc__ else "",
    )


def replicas_of(
    apis: Sequence[LitAPI],
    devices: Sequence[Device],
    per_device: Sequence[int],
    callbacks: Sequence[Callback],
    *,
    stall_seconds: float,
    logs: bool,
) -> list[Replicas]:
    """Return the workers of each API: on each device as many as were asked for, or as its `autoscale` begins with."""
    common = WorkerSpec(packed=b"", api=0, name="", address="", stall_seconds=stall_seconds, logs=logs, replacements=replacements())
    patterns = [
        dataclasses.replace(common, packed=packed(api, callbacks), api=number, path=api.api_path) for number, api in enumerate(apis)
    ]
    return [_replicas(api, what, devices, count) for api, what, count in zip(apis, patterns, per_device, strict=True)]


def _replicas(api: LitAPI, what: WorkerSpec, devices: Sequence[Device], per_device: int) -> Replicas:
    policy = api.autoscale
    count = len(devices) * per_device
    if policy is not None:
        first = policy.min_replicas if policy.initial_replicas is None else policy.initial_replicas
        count = max(policy.min_replicas, min(policy.max_replicas, first))
    specs = [
        dataclasses.replace(what, name=f"{api.api_path} {index}", device=_given(devices[index // per_device]))
        for index in range(len(devices) * per_device)
    ]
    return Replicas(path=api.api_path, count=count, specs=specs, autoscale=policy)


def _given(device: Device) -> Device:
    """Return what `setup` gets: the name of one device, or the list of several."""
    return device[0] if isinstance(device, list) and len(device) == 1 else device


def workers_of(given: object, paths: Sequence[str], apis: Sequence[LitAPI]) -> list[int]:
    """Return how many workers each API has on each device.

    Raises:
        ConfigError: A number is given for an API whose number follows the load.
    """
    counts = workers_for(given, paths)
    for api, count in zip(apis, counts, strict=True):
        if api.autoscale is not None and count > 1:
            raise ConfigError(
                f"workers_per_device={given!r} and {api.api_path}'s autoscale both say how many workers there are. Pass "
                "AutoscalePolicy(min_replicas=…, max_replicas=…) alone."
            )
    return counts


def middlewares_of(given: Sequence[Any] | None) -> tuple[tuple[Any, Mapping[str, Any]], ...]:
    """Return middlewares with their keywords.

    Raises:
        ConfigTypeError: One is neither a class nor a pair of a class and a dict.
    """
    found = list[tuple[Any, Mapping[str, Any]]]()
    for each in given or ():
        kind, options = each if isinstance(each, Sequence) and len(each) == 2 else (each, {})
        if not callable(kind) or not isinstance(options, Mapping):
            raise ConfigTypeError(f"middlewares={each!r:.80} is not accepted: it takes classes, or pairs (class, {{'keyword': value}}).")
        found.append((kind, options))
    return tuple(found)


def queue_size(given: object) -> int | None:
    """Return how many requests may wait; `None` for `"auto"`.

    Raises:
        ConfigError: It is neither a whole number ≥ 1 nor `"auto"`.
    """
    if given == "auto":
        return None
    if isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        return given
    raise ConfigError(f"max_queue_size={given!r} is not accepted: it takes a whole number ≥ 1, or 'auto'.")
