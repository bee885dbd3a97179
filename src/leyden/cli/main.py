"""The `leyden` command: finds the command group, runs it, and turns Leyden's errors into one line and an exit status.

`GROUPS` names every group with its one-line help, so `leyden --help` imports none of them; a group's module is imported
when the group is used or its own help is asked for. Such a module has

```python
def add_parser(subparsers) -> None:  # adds its parser under its name; imports nothing heavy
    parser = subparsers.add_parser("fabric", help=…)
    parser.set_defaults(run=run)     # run(args) -> exit status; imports what it needs when it is called
```

Exit status: what the command returns; 2 for what the user can mend (bad arguments, nothing there, a package missing),
1 for what went wrong outside (storage, another process), 130 for Ctrl-C. `--traceback` shows where an error came from.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from leyden import __version__
from leyden.core.errors import LeydenError, RankFailedError, RemoteError, StorageError, closest


class Group(NamedTuple):  # not a dataclass: importing dataclasses would cost a tenth of this command's start
    """A command group: where its code is, and the line that `leyden --help` shows for it."""

    module: str
    help: str


GROUPS: dict[str, Group] = {
    "fabric": Group("leyden.cli.fabric", "start a Fabric script on several processes or machines"),
    "ckpt": Group("leyden.cli.ckpt", "inspect, convert, consolidate and reshard checkpoints"),
    "data": Group("leyden.cli.data", "write, inspect, verify, repair, convert and merge datasets"),
    "serve": Group("leyden.cli.serve", "serve a model over HTTP, check it, pack it into an image"),
    "doctor": Group("leyden.cli.doctor", "say what this machine has, what is missing and how to add it"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors read like the rest: the usage, then `error: …` with the closest match, exit status 2.

    Attributes:
        default_command: The command that is meant when the first argument is none: `leyden serve FILE` is `leyden serve run FILE`.
    """

    default_command: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after naming the command that was left out."""
        if self.default_command is not None and args and args[0] not in (*self._commands(), "-h", "--help"):
            args = [self.default_command, *args]
        return super().parse_known_args(args, namespace)

    def _commands(self) -> list[str]:
        return [name for action in self._actions if isinstance(action, argparse._SubParsersAction) for name in action.choices]

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")


def build_parser(names: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the whole parser, with the commands of the groups in `names`; the other groups are one line each.

    Args:
        names: Groups whose modules are imported.
    """
    parser = Parser(prog="leyden", description="Prepare data, train, fine-tune, serve and share models.")
    parser.add_argument("--version", action="version", version=f"leyden {__version__}")
    parser.add_argument("--traceback", action="store_true", help="on an error, show where it came from")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=Parser)
    for name, group in GROUPS.items():
        if name in names:
            importlib.import_module(group.module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=group.help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one `leyden` command and return its exit status.

    Args:
        argv: The arguments after `leyden`; those of this process if omitted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser = build_parser([command] if command in GROUPS else [])
    if command is not None and command not in GROUPS:
        parser.error(f"no command {command!r}; there are {', '.join(GROUPS)}.{closest(command, GROUPS)}")
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 0
    if not hasattr(args, "run"):
        parser.error(f"what shall {command!r} do? `leyden {command} --help` lists its commands.")
    return reported(args)


def reported(args: argparse.Namespace) -> int:
    """Run a command that is parsed, tell its error, and return its exit status."""
    try:
        status = int(args.run(args) or 0)
        sys.stdout.flush()  # a reader that is gone is noticed here, not while the interpreter shuts down
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `leyden … | head`: the rest has no reader
        return 141
    except LeydenError as error:
        if args.traceback:
            raise
        return _report(error, as_json=getattr(args, "json", False))
    return status


def _report(error: LeydenError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, RemoteError) and error.remote_traceback:
        print(error.remote_traceback.rstrip(), file=sys.stderr)
    if isinstance(error, RankFailedError):
        return error.exit_code
    return 1 if isinstance(error, (RemoteError, StorageError)) else 2


if __name__ == "__main__":
    sys.exit(main())
