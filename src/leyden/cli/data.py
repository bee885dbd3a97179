"""`leyden data`: look into datasets, check, repair and convert them, whatever format they are in; jobs are in `data_jobs`."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from leyden.cli.data_jobs import add_commands
from leyden.core.errors import ConfigError

FORMATS = ("leyden", "litdata", "parquet", "arrow")


def add_parser(subparsers: Any) -> None:
    """Add `leyden data` and its commands; nothing heavy is imported."""
    parser = subparsers.add_parser(
        "data",
        help="write, inspect, verify, repair, convert and merge datasets",
        description="Look into datasets, check, repair and convert them: ours, LitData's, MosaicML's, Parquet files and tar shards, "
        "in a folder or an object store. Nothing is ever overwritten; jobs that write datasets go on where they were killed.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="data_command", required=True)
    look = _command(commands, "inspect", inspect, "say what a dataset holds")
    look.add_argument("--rows", metavar="N", type=int, default=5, help="how many of the first rows to show")
    look.add_argument("--html", metavar="FILE", help="write a page with histograms, text and a contact sheet of images")
    check = _command(commands, "verify", verify, "read a whole dataset and name each fault; status 1 if there is one")
    check.add_argument("--fast", action="store_true", help="look at the index and for the files only")
    for command in (look, check):
        command.add_argument("--version", metavar="N", type=int, help="which version, of our own format; the newest by default")
        command.add_argument("--block-size", metavar="TOKENS", type=int, help="tokens in a row, of LitData's token datasets")
    mend = _command(commands, "repair", repair, "restore the index or manifest of a dataset from what is left of it")
    mend.add_argument("--dry-run", action="store_true", help="say what would be done")
    mend.add_argument("--job", metavar="ID", help="whose chunks make the dataset, if those of several jobs lie there")
    rewrite = _command(commands, "convert", convert, "write a dataset in another format")
    rewrite.add_argument("dst", metavar="DST", help="a folder or URL that is empty")
    rewrite.add_argument("--to", choices=FORMATS, default="leyden", help="our format, LitData's, Parquet or Arrow IPC files")
    rewrite.add_argument("--chunk-bytes", metavar="SIZE", default="64MB", help="the most bytes of a file")
    rewrite.add_argument("--compression", metavar="NAME", help="of our own format and LitData's layout: zstd or zstd:LEVEL")
    rewrite.add_argument("--num-workers", metavar="N", type=int, default=0, help="worker processes; 0: none")
    cut = _command(commands, "split", split, "write parts of a dataset, such as for training and validation, as datasets")
    cut.add_argument("dst", metavar="DST", nargs="+", help="a folder or URL that is empty, for each part")
    cut.add_argument("--splits", metavar="FRACTION", nargs="+", type=float, required=True, help="how much of the rows each part has")
    cut.add_argument("--seed", metavar="N", type=int, default=42, help="of the draw")
    cut.add_argument("--in-order", action="store_true", help="let the parts follow one another instead of drawing them")
    cut.add_argument("--num-workers", metavar="N", type=int, default=0, help="worker processes; 0: none")
    add_commands(commands, _command)


def inspect(args: argparse.Namespace) -> int:
    """Print what a dataset holds."""
    from leyden.data import inspect as look

    found = look(args.uri, rows=args.rows, block_size=args.block_size, version=args.version, html=args.html)
    print(json.dumps(found.to_json()) if args.json else "\n".join(found.lines()))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check a dataset; the status is 1 if something is wrong."""
    from leyden.data import verify as check

    found = check(args.uri, fast=args.fast, block_size=args.block_size, version=args.version)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        for fault in found.faults:
            print(fault)
        what = "files are" if found.is_fast else "rows are"
        print(f"{args.uri}: {len(found.faults)} fault(s)" if found.faults else f"{args.uri}: all {found.num_rows:,} {what} there")
    return 1 if found.faults else 0


def repair(args: argparse.Namespace) -> int:
    """Restore what can be restored."""
    from leyden.data import repair as mend

    found = mend(args.uri, job=args.job, dry_run=args.dry_run)
    if args.json:
        print(json.dumps(found.to_json()))
        return 0
    for step in found.steps or ("nothing is to be repaired",):
        print(f"would {step}" if args.dry_run and found.steps else step)
    for assumption in found.assumed:
        print(f"assumed: {assumption}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write a dataset in another format."""
    from leyden.data import convert as rewrite

    made = rewrite(args.uri, args.dst, args.to, chunk_bytes=args.chunk_bytes, compression=args.compression, num_workers=args.num_workers)
    facts = {"url": made.url, "num_rows": made.num_rows, "files": made.files, "num_bytes": made.num_bytes}
    print(json.dumps(facts) if args.json else f"wrote {made.num_rows:,} rows to {made.url} ({len(made.files)} files)")
    return 0


def split(args: argparse.Namespace) -> int:
    """Write parts of a dataset."""
    from leyden.data import StreamingDataset, train_test_split
    from leyden.data import convert as rewrite

    if len(args.dst) != len(args.splits):
        raise ConfigError(f"--splits has {len(args.splits)} fractions for {len(args.dst)} places: give one for each DST.")
    parts = train_test_split(StreamingDataset(args.uri), args.splits, seed=args.seed, shuffle=not args.in_order)
    made = [rewrite(part, dst, num_workers=args.num_workers) for part, dst in zip(parts, args.dst, strict=True)]
    if args.json:
        print(json.dumps([{"url": part.url, "num_rows": part.num_rows, "num_bytes": part.num_bytes} for part in made]))
    else:
        print("\n".join(f"wrote {part.num_rows:,} rows to {part.url}" for part in made))
    return 0


def _command(commands: Any, name: str, function: Callable[[argparse.Namespace], int], text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("uri", metavar="URI", help="a folder or URL; its last part may be a pattern of Parquet files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=function)
    return parser
