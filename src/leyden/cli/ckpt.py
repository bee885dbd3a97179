"""`leyden ckpt`: inspect, convert, consolidate and reshard checkpoints of any kind, without the code that wrote them."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FORMATS = ("file", "directory", "hf", "dcp")


def add_parser(subparsers: Any) -> None:
    """Add `leyden ckpt` and its commands; nothing heavy is imported."""
    parser = subparsers.add_parser(
        "ckpt",
        help="inspect, convert, consolidate and reshard checkpoints",
        description="Look into checkpoints and rewrite them: Leyden's, Lightning 2.x's, torch's, DeepSpeed's and safetensors. "
        "No code that a checkpoint names is run. Nothing is ever overwritten.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="ckpt_command", required=True)
    look = _command(commands, "inspect", inspect, "say what a checkpoint is and holds")
    look.add_argument("path", metavar="PATH", help="a file or folder; `latest` stands for the newest")
    look.add_argument("--verify", action="store_true", help="read every byte and compare checksums")
    rewrite = _command(commands, "convert", convert, "rewrite a checkpoint in another format")
    rewrite.add_argument("src", metavar="SRC", help="a checkpoint of any kind")
    rewrite.add_argument("dst", metavar="DST", help="what to write; nothing may be there")
    rewrite.add_argument(
        "--to",
        choices=FORMATS,
        default="file",
        help="one file that torch.load reads; a directory with a safetensors file per module; the weights alone as Hugging Face "
        "keeps them; a folder of torch.distributed.checkpoint",
    )
    rewrite.add_argument("--drop-opaque", action="store_true", help="leave out values whose classes are not imported, instead of refusing")
    merge = _command(commands, "consolidate", consolidate, "merge a sharded checkpoint into one file")
    merge.add_argument(
        "directory", metavar="DIR", help="a directory of ours, a 2.x FSDP folder or a folder of torch.distributed.checkpoint"
    )
    merge.add_argument("--output", metavar="FILE", help="the file; by default DIR.consolidated")
    cut = _command(commands, "reshard", reshard, "cut a checkpoint into one shard for each of N ranks")
    cut.add_argument("src", metavar="SRC", help="a checkpoint of any kind")
    cut.add_argument("dst", metavar="DST", help="the directory; nothing may be there")
    cut.add_argument("--ranks", metavar="N", type=int, required=True, help="how many shards")


def inspect(args: argparse.Namespace) -> int:
    """Print what a checkpoint is and holds."""
    from leyden.fabric.checkpoint.inspect import inspect as describe

    with _warnings_as_lines():
        report = describe(args.path, verify=args.verify)
    if args.json:
        print(json.dumps(report))
    else:
        print("\n".join(_lines(report)))
    return 0


def convert(args: argparse.Namespace) -> int:
    """Rewrite a checkpoint in another format."""
    from leyden.fabric.checkpoint.convert import convert as rewrite

    return _written(args, lambda: rewrite(args.src, args.dst, args.to, drop_opaque=args.drop_opaque))


def consolidate(args: argparse.Namespace) -> int:
    """Merge a sharded checkpoint into one file."""
    from leyden.fabric.checkpoint.convert import consolidate as merge

    return _written(args, lambda: merge(args.directory, args.output))


def reshard(args: argparse.Namespace) -> int:
    """Cut a checkpoint into shards."""
    from leyden.fabric.checkpoint.reshard import reshard as cut

    return _written(args, lambda: cut(args.src, args.dst, ranks=args.ranks))


def _command(commands: Any, name: str, function: Callable[[argparse.Namespace], int], text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=function)
    return parser


def _written(args: argparse.Namespace, function: Callable[[], Any]) -> int:
    with _warnings_as_lines():
        written = function()
    print(json.dumps({"path": str(written)}) if args.json else f"wrote {written}")
    return 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show warnings as `warning: …`: where in Leyden they came from is of no use here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"warning: {warning.message}", file=sys.stderr)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report as a person reads it."""
    yield f"{report['path']}: {report['kind']}, {_size(report['bytes'])} in {len(report['files'])} file(s)"
    facts = [f"{name} {version}" for name, version in report["versions"].items()]
    facts += [
        f"{name} {report[name]}"
        for name in ("strategy", "precision", "world_size", "seed", "step", "created")
        if report.get(name) is not None
    ]
    if mesh := report.get("mesh"):
        facts.append("mesh " + " x ".join(f"{axis}={size}" for axis, size in zip(mesh["axes"], mesh["sizes"], strict=True)))
    if facts:
        yield "  " + ", ".join(facts)
    width = max(map(len, report["entries"]), default=0)
    for name, entry in report["entries"].items():
        yield f"  {name:<{width}}  {_entry(entry)}"
    for opaque in report["opaque"]:
        yield f"  not imported: {opaque['name']} at {opaque['place']}"
    if "verified" in report:
        yield f"  verified: {report['verified']} agree"


def _entry(entry: dict[str, Any]) -> str:
    text = " ".join(str(entry[name]) for name in ("kind", "class", "type") if name in entry)
    if "tensors" in entry:
        return (
            f"{text}  {entry['parameters']:,} numbers in {entry['tensors']} tensor(s), {_size(entry['bytes'])}, {' '.join(entry['dtypes'])}"
        )
    if "value" in entry:
        return f"{text}  {entry['value']!r:.60}"
    return f"{text}  of {entry['length']}" if "length" in entry else text


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:,.0f} bytes"
    units = ("kB", "MB", "GB", "TB")
    step = next((step for step in range(1, len(units)) if count < 1000 ** (step + 1)), len(units))
    return f"{count / 1000**step:.1f} {units[step - 1]}"
