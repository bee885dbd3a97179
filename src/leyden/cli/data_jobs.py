"""`leyden data optimize`, `jobs`, `versions`, `merge` and `cache`: jobs and what they have made."""

import argparse
import glob
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leyden.core.errors import ConfigError


def add_commands(commands: Any, command: Callable[..., Any]) -> None:
    """Add the commands.

    Args:
        commands: Of `leyden data`.
        command: Adds one that has a URI.
    """
    write = commands.add_parser("optimize", help="write a dataset", description="Write what a function makes of inputs as a dataset.")
    write.add_argument("function", metavar="MODULE:FUNCTION", help="makes a sample of an input; found from the current folder")
    write.add_argument("--inputs", metavar="WHAT", required=True, help="a pattern of files, @LIST.txt (a line each) or ROWS.jsonl")
    write.add_argument("--output-dir", metavar="URI", required=True, help="a folder or URL")
    write.add_argument("--chunk-bytes", metavar="SIZE", help="the most bytes of a chunk; 64MB by default")
    write.add_argument("--chunk-size", metavar="ROWS", type=int, help="the most rows of a chunk")
    write.add_argument("--compression", metavar="NAME", help="zstd, zstd:LEVEL, lz4 or auto")
    write.add_argument("--mode", choices=("append", "overwrite"), help="what to do with a dataset that is there")
    write.add_argument("--on-error", choices=("raise", "skip", "quarantine"), default="raise", help="for inputs that fail")
    write.add_argument("--num-workers", metavar="N", type=int, help="worker processes; all cores by default")
    write.add_argument("--json", action="store_true", help="print JSON")
    write.set_defaults(run=optimize)
    work = command(commands, "jobs", jobs, "list the jobs of an output, and how far each is")
    work.add_argument("--drop", metavar="JOB", help="remove an unfinished job and what it has written")
    past = command(commands, "versions", versions, "list the versions of a dataset, go back to one, remove old ones")
    past.add_argument("--rollback", metavar="N", type=int, help="make version N the newest, as a new version")
    past.add_argument("--gc", metavar="KEEP", type=int, help="remove all but so many versions that are older than seven days")
    join = commands.add_parser("merge", help="make one dataset of several", description="Make one dataset of several, by copying chunks.")
    join.add_argument("uris", metavar="URI", nargs="+", help="folders or URLs, at least two")
    join.add_argument("--output-dir", metavar="URI", required=True, help="a folder or URL that is empty")
    join.add_argument("--json", action="store_true", help="print JSON")
    join.set_defaults(run=merge)
    kept = commands.add_parser("cache", help="show or clear the node's cache", description="Show or clear the cache of remote datasets.")
    kept.add_argument("action", choices=("path", "list", "clear"), help="where it is, what is in it, or be rid of that")
    kept.add_argument("uri", metavar="URI", nargs="?", help="only of this dataset")
    kept.add_argument("--older-than", metavar="AGE", default="0s", help="only what nobody has read for so long, such as 7d")
    kept.add_argument("--json", action="store_true", help="print JSON")
    kept.set_defaults(run=cache)


def optimize(args: argparse.Namespace) -> int:
    """Write a dataset."""
    from leyden.data import optimize as write

    report = write(
        function_named(args.function),
        inputs_named(args.inputs),
        args.output_dir,
        chunk_bytes=args.chunk_bytes,
        chunk_size=args.chunk_size,
        compression=args.compression,
        mode=args.mode,
        on_error=args.on_error,
        num_workers=args.num_workers,
    )
    told = f"wrote {report.num_rows:,} rows as version {report.version} of {args.output_dir}"
    print(json.dumps(report._asdict()) if args.json else told)
    return 0


def jobs(args: argparse.Namespace) -> int:
    """List jobs."""
    from leyden.data import drop_job, status

    if args.drop is not None:
        drop_job(args.uri, args.drop)
    found = status(args.uri)
    if args.json:
        print(json.dumps([each._asdict() for each in found]))
        return 0
    if not found:
        print(f"no jobs at {args.uri}", file=sys.stderr)
    for each in found:
        units = "?" if each.units is None else f"{each.units:,}"
        done = f"{each.units_done:,} of {units} units"
        print(f"{each.job}  {each.state:10}  {done}  {each.rows:,} rows  {each.failures:,} failures  {each.function}")
    return 0


def versions(args: argparse.Namespace) -> int:
    """List versions, go back to one, or remove old ones."""
    from leyden.data import gc, rollback
    from leyden.data import versions as listed

    if args.rollback is not None:
        rollback(args.uri, args.rollback)
    if args.gc is not None:
        gc(args.uri, keep=args.gc)
    found = listed(args.uri)
    if args.json:
        print(json.dumps([{**each._asdict(), "created_at": each.created_at and each.created_at.isoformat()} for each in found]))
        return 0
    for each in found:
        when = each.created_at.strftime("%Y-%m-%d %H:%M") if each.created_at else "?"
        size = f"{each.num_rows:,} rows  {each.num_chunks:,} chunks  {each.num_bytes:,} bytes"
        print(f"{each.version:4}  {when:16}  {each.operation:10}  {size}")
    return 0


def merge(args: argparse.Namespace) -> int:
    """Make one dataset of several."""
    from leyden.data import merge_datasets

    made = merge_datasets(args.uris, args.output_dir)
    facts = {"version": made.version, "num_rows": made.num_rows, "num_chunks": made.num_chunks, "num_bytes": made.num_bytes}
    print(json.dumps(facts) if args.json else f"wrote {made.num_rows:,} rows to {args.output_dir}")
    return 0


def cache(args: argparse.Namespace) -> int:
    """Show or clear the cache."""
    from leyden.data import cache_path, cached_datasets, clear_cache

    if args.action == "path":
        print(json.dumps({"path": cache_path()}) if args.json else cache_path())
        return 0
    if args.action == "clear":
        gone = clear_cache(url=args.uri, older_than=args.older_than)
        facts = {"blocks": gone.blocks, "bytes": gone.bytes}
        print(json.dumps(facts) if args.json else f"removed {gone.blocks:,} blocks, {gone.bytes:,} bytes")
        return 0
    if args.older_than != "0s":
        raise ConfigError(f"--older-than {args.older_than} is for clear. Leave it out: list says when each was read.")
    found = cached_datasets(url=args.uri)
    if args.json:
        print(json.dumps([each._asdict() for each in found]))
        return 0
    for each in found:
        print(f"{each.name}  {each.blocks:,} blocks  {each.bytes:,} bytes  read {(time.time() - each.used) / 3600:.1f} h ago")
    return 0


def function_named(name: str) -> Callable[..., Any]:
    """Return the function of `module:function`, looked for from the current folder.

    Raises:
        ConfigError: There is none.
    """
    module, _, function = name.partition(":")
    if not function or not module or module.startswith("."):
        raise ConfigError(f"{name!r} is not accepted: name a function as MODULE:FUNCTION, such as prepare:sample.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r}: {error}. It is looked for from {Path.cwd()}.") from error
    except Exception as error:
        raise ConfigError(f"{name!r}: importing {module} raised {type(error).__name__}: {error}. --traceback shows where.") from error
    if not callable(found):
        raise ConfigError(f"{name!r} is {type(found).__name__}, and no function.")
    return found  # type: ignore[no-any-return]


def inputs_named(what: str) -> list[Any]:
    """Return the inputs of a pattern, a list or a file of rows.

    Raises:
        ConfigError: There are none.
    """
    if what.startswith("@"):
        found: list[Any] = [line for line in _lines(what[1:]) if line]
    elif what.endswith(".jsonl"):
        found = [_row(what, number, line) for number, line in enumerate(_lines(what), start=1) if line.strip()]
    else:
        found = sorted(glob.glob(what, recursive=True))  # noqa: PTH207 - the pattern may begin at the root
    if not found:
        raise ConfigError(f"--inputs {what!r} gives no inputs: pass a pattern such as 'photos/*.jpg', @LIST.txt or ROWS.jsonl.")
    return found


def _row(path: str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        told = f"--inputs: line {number} of {path!r} is no JSON: {error}"
        raise ConfigError(f'{told}. Each line is one value, such as {{"id": 1}}.') from error


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"--inputs: {path!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--inputs: {path!r} is no text in UTF-8: {error}.") from error
