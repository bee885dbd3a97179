"""`leyden doctor`: what this machine has, what is missing, and the command that adds each missing piece.

Here are its arguments and its text; what it finds comes from `machine.py`, which is imported when it looks.
"""

import argparse
import json
from typing import Any

GIB = 2**30


def add_parser(subparsers: Any) -> None:
    """Add `leyden doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine has, what is missing and how to add it",
        description="Say what this machine has, what is missing, and the command that adds each missing piece. It changes nothing.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; the status is 1 if a package is missing that Leyden cannot do without."""
    from leyden.cli.machine import examine

    report = examine()
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 1 if any(piece["needed"] for piece in report["missing"]) else 0


def as_text(report: dict[str, Any]) -> str:
    """Return the report as a person reads it."""
    python, torch, cores_, memory_ = (report[key] for key in ("python", "torch", "cores", "memory"))
    limit = f", limited to {_gib(memory_['cgroup_bytes'])}" if memory_["cgroup_bytes"] else ""
    lines = [
        f"leyden    {report['leyden']}",
        f"python    {python['version']} ({python['executable']})",
        f"platform  {python['platform']}",
        f"torch     {torch['version']} ({torch['build']})" if torch["version"] else f"torch     not usable: {torch['error']}",
        *(f"device    {device}" for device in torch.get("devices", [])),
        f"cores     {cores_['usable']:g} usable of {cores_['machine']}",
        f"memory    {_gib(memory_['available_bytes'])} free of {_gib(memory_['total_bytes'])}{limit}",
        *(f"disk      {_gib(free)} free at {path}" for path, free in report["disk"].items()),
        "",
        "packages",
        *(f"  {p['name']:<16}{p['version'] or 'missing':<14}{p['extra'] or 'needed'}" for p in report["packages"]),
        *(f"  {p['name']:<16}{'found' if p['path'] else 'missing':<14}{p['for']}" for p in report["programs"]),
    ]
    if report["missing"]:
        lines += ["", "missing, and the command that adds it", *(f"  {m['name']:<16}{m['command']}" for m in report["missing"])]
    return "\n".join(lines)


def _gib(number: int | None) -> str:
    return "?" if number is None else f"{number / GIB:.1f} GiB"
