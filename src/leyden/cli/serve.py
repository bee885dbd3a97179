"""`leyden serve`: run the server that a Python file holds, check that it would work, pack it into an image.

`leyden serve FILE` is short for `leyden serve run FILE`. What the options are stands in `serve_flags`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.cli.serve_flags import RUN, SERVER, UVICORN, add_flags, given
from leyden.core.errors import ConfigError, RemoteError

FILE_HELP = "a Python file, or a module as package.module; :NAME says what to serve of it"
_PACKAGES = ("msgspec", "fastapi", "httptools", "uvicorn", "httpx")


def add_parser(subparsers: Any) -> None:
    """Add `leyden serve` and its commands; nothing heavy is imported."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model over HTTP, check it, pack it into an image",
        usage="leyden serve FILE[:NAME] [options]\n       leyden serve COMMAND …",
        description="Run the server that a Python file holds; `leyden serve FILE` is short for `leyden serve run FILE`.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="serve_command", required=True)
    _add_run(commands)
    _add_check(commands)
    _add_dockerize(commands)
    parser.default_command = "run"


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run the server",
        description="Run the server that a file holds: a LitServer, a function whose return annotation is LitServer, a LitAPI or a class "
        "of it. The block below `if __name__` does not run. Options replace what the file gives. The server ends with status 0 when "
        "SIGTERM or Ctrl-C stops it and all is answered, and with 1 when no worker of an API can be set up.",
    )
    parser.add_argument("file", metavar="FILE[:NAME]", help=FILE_HELP)
    parser.add_argument("--reload", action="store_true", help="for development: start again when a .py file of the folder changes")
    add_flags(parser, "where it runs, and how", RUN, UVICORN)
    add_flags(parser, "the server", SERVER)
    parser.set_defaults(run=run)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="say whether a server would work",
        description="Make the server, set each API up in this process, send it a request, and print its routes; status 1 if something "
        "fails. The request is the one you give; else one that the API's protocol or the type of its body tells; else none.",
    )
    parser.add_argument("file", metavar="FILE[:NAME]", help=FILE_HELP)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[PATH=]JSON",
        help="the body of the request, or @FILE; with the API's path before it where there are several; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(parser, "the server", SERVER)
    parser.set_defaults(run=check)


def _add_dockerize(commands: Any) -> None:
    parser = commands.add_parser(
        "dockerize",
        help="write a Dockerfile that serves a file",
        description="Write Dockerfile and .dockerignore into this folder, which becomes the image's. Nothing is overwritten.",
    )
    parser.add_argument("file", metavar="FILE[:NAME]", help="a Python file below this folder, or a module; :NAME says what to serve of it")
    parser.add_argument("--port", metavar="PORT", type=int, default=8000, help="where it is served in the container")
    parser.add_argument("--gpu", action="store_true", help="with CUDA")
    parser.add_argument("--force", action="store_true", help="overwrite the two files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=dockerize)


def run(args: argparse.Namespace) -> int:
    """Serve until the server is told to stop."""
    if args.reload:
        return _run_again_and_again(args)
    server = _found(args).server
    try:
        server.run(**given(args, RUN, UVICORN))
    except RemoteError as error:
        has_log = vars(args).get("log_level") != "critical"  # then it has the traceback already
        raise RemoteError(str(error), "" if has_log else error.remote_traceback) from error
    return 0


def check(args: argparse.Namespace) -> int:
    """Check a server; the status is 1 if something is wrong."""
    from leyden.core.log import configure
    from leyden.serve.command.checking import check as examine
    from leyden.serve.command.samples import read_inputs

    found = _found(args)
    configure("warning" if args.traceback else "critical")
    report = examine(found.server, read_inputs(args.input, [api.path for api in found.server.config.apis]))
    print(json.dumps(report.to_json()) if args.json else "\n".join(report.lines()))
    for fault in report.faults:
        print(f"error: {fault.message}", file=sys.stderr)
        if args.traceback:
            print(fault.traceback.rstrip(), file=sys.stderr)
    return 1 if report.faults else 0


def dockerize(args: argparse.Namespace) -> int:
    """Write what makes an image."""
    from leyden.serve.command.docker import dockerize as write

    made = write(args.file, Path.cwd(), port=args.port, gpu=args.gpu, force=args.force)
    if args.json:
        print(json.dumps(made.to_json()))
        return 0
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(made.lines()))
    return 0


def _run_again_and_again(args: argparse.Namespace) -> int:
    from leyden.cli.main import reported
    from leyden.serve.command.modules import Target
    from leyden.serve.command.reloading import Reloader

    target = Target.parse(args.file)
    once = argparse.Namespace(**{"generate_client_file": False, **vars(args), "reload": False})  # client.py would be a change
    _require_packages()  # before the forks, so that each of them has them at once
    folder = target.folder()
    print(f"Watching {folder} for changes of .py files.", flush=True)
    return Reloader(lambda: reported(once), folder, say=lambda text: print(text, flush=True)).run()


def _found(args: argparse.Namespace) -> Any:
    _require_packages()
    from leyden.serve.command.finding import find
    from leyden.serve.command.modules import Target

    found = find(Target.parse(args.file), _replacements(args))
    if found.note:
        print(f"warning: {found.note}", file=sys.stderr)
    return found


def _replacements(args: argparse.Namespace) -> Mapping[str, Any]:
    flags = given(args, SERVER)
    for name, each in flags.items():
        if isinstance(each, str) and not each:
            raise ConfigError(f"--{name.replace('_', '-')} is empty: leave it out, or give a value.")
    return flags


def _require_packages() -> None:
    from leyden.core.optional import require

    for name in _PACKAGES:
        require(name, extra="serve", purpose="leyden serve")
