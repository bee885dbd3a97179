"""Finds what is to be served in a user's module: a `LitServer`, a function that returns one, a `LitAPI` or a class of it."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from leyden.core.errors import ConfigError, ConfigTypeError, NotFoundError, UnsupportedError, closest, listed
from leyden.serve.api import LitAPI
from leyden.serve.command.modules import Target, explained
from leyden.serve.command.scripts import servers_in, unseen
from leyden.serve.loading import importing
from leyden.serve.server import LitServer


class Found(NamedTuple):
    """A server, and what it was made of.

    Args:
        server: It.
        name: What it is called in its file.
        note: What the user should know of how it was found; empty if nothing.
    """

    server: LitServer
    name: str
    note: str = ""


def find(target: Target, replacements: Mapping[str, Any] | None = None) -> Found:
    """Return the server that a user names.

    Args:
        target: Where it is.
        replacements: Arguments of `LitServer`, instead of those that the file gives.

    Raises:
        NotFoundError: The file, the module or the name is not there.
        ConfigError: There is no server, or there are several; or the user's code raises.
    """
    flags = dict(replacements or {})
    with importing(flags):
        module = target.load()
        path = Path(module.__file__).resolve() if getattr(module, "__file__", None) else None
        name, thing = _named(module, target) if target.name else _only(module, target)
        with explained(path):
            server = _server_of(thing, name)
    if "shutdown_path" in flags and not server.enable_shutdown_api:
        raise UnsupportedError("--shutdown-path has no effect: nobody may stop this server by a request. Add --enable-shutdown-api.")
    return Found(server, name, "" if isinstance(thing, LitServer) else _note(path, name))


def _named(module: ModuleType, target: Target) -> tuple[str, Any]:
    thing: Any = module
    for part in target.name.split("."):
        if not hasattr(thing, part):
            names = [name for name, value in vars(module).items() if _kind(value, module) is not None]
            raise NotFoundError(
                f"{target.place} has no {target.name!r}.{closest(target.name, names)}{_there(names)} What stands below "
                '`if __name__ == "__main__":` is not there: it does not run.'
            )
        thing = getattr(thing, part)
    return target.name, thing


def _there(names: list[str]) -> str:
    return f" To be served there: {listed(names)}." if names else ""


def _only(module: ModuleType, target: Target) -> tuple[str, Any]:
    """Return the one thing of the most telling kind that a module holds, with its name."""
    kinds: dict[str, dict[str, Any]] = {"LitServer": {}, "function": {}, "LitAPI": {}, "class": {}}
    for name, value in vars(module).items():
        kind = None if name.startswith("_") else _kind(value, module)
        if kind is not None and all(value is not other for other in kinds[kind].values()):
            kinds[kind][name] = value
    kinds["class"] = _leaves(kinds["class"])
    for found in kinds.values():
        if len(found) > 1:
            names = list(found)
            raise ConfigError(f"{target.place} holds several to serve: {listed(names)}. Name one: leyden serve {target.place}:{names[0]}")
        if found:
            return next(iter(found.items()))
    raise ConfigError(
        f"{target.place} holds nothing to serve: no LitServer, no LitAPI, no class of it, no function with `-> LitServer`. "
        'Write server = LitServer(MyAPI()) at its top level, above `if __name__ == "__main__":`, which does not run here.'
    )


def _kind(value: Any, module: ModuleType) -> str | None:
    """Return what kind of a thing to serve something is, if it is one and is the module's own."""
    if isinstance(value, LitServer):
        return "LitServer"
    if isinstance(value, LitAPI):
        return "LitAPI"
    is_own = getattr(value, "__module__", None) == module.__name__
    if is_own and isinstance(value, type) and issubclass(value, LitAPI) and not inspect.isabstract(value):
        return "class"
    if is_own and isinstance(value, FunctionType) and _returns_server(value):
        return "function"
    return None


def _returns_server(function: FunctionType) -> bool:
    wanted = inspect.get_annotations(function).get("return")
    return wanted is LitServer or (isinstance(wanted, str) and wanted.strip("\"'").rpartition(".")[2] == "LitServer")


def _leaves(classes: Mapping[str, type]) -> dict[str, type]:
    """Return the classes that no other one of them is made from."""
    return {
        name: each for name, each in classes.items() if not any(other is not each and issubclass(other, each) for other in classes.values())
    }


def _server_of(thing: Any, name: str) -> LitServer:
    if hasattr(thing, "router"):  # somebody has named `server.app`
        raise ConfigTypeError(f"{name} is an app ({type(thing).__name__}): name the LitServer itself, whose app it is.")
    if callable(thing) and not isinstance(thing, LitServer | LitAPI):
        thing = _called(thing, name)
    if isinstance(thing, LitServer):
        return thing
    if isinstance(thing, LitAPI) or (isinstance(thing, list) and thing):
        return LitServer(thing)
    if inspect.iscoroutine(thing):
        thing.close()
    raise ConfigTypeError(f"{name} gives a {type(thing).__name__}: it should be a LitServer, a LitAPI, or a function that returns one.")


def _called(thing: Callable[..., Any], name: str) -> Any:
    try:
        inspect.signature(thing).bind()
    except TypeError as error:
        raise ConfigError(
            f"{name}() cannot be called without arguments ({error}). Give them defaults, or make a LitServer at the top level of the file."
        ) from error
    return thing()


def _note(path: Path | None, name: str) -> str:
    """Return a warning if the file makes a server where nobody looks."""
    if path is None:
        return ""
    servers = servers_in(path)
    return unseen(path, name) if servers.below_guard or servers.are_unseen else ""
