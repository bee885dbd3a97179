"""`leyden fabric`: start a script that uses `Fabric` on several processes, and merge a sharded checkpoint into one file.

`run` hands over to torchrun: this process becomes it. The script finds the choices of the command line in variables
`LT_…`, which replace the arguments of `Fabric`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leyden.core import settings
from leyden.core.errors import ConfigError, NotFoundError

DEFAULT_PORT = 29400
OPTIONS = ("accelerator", "strategy", "devices", "num_nodes", "precision")  # → LT_<NAME>, unless absent
STARTS_ITS_OWN = ("spawn", "fork", "notebook")  # parts of strategy names that start their ranks by a function


def add_parser(subparsers: Any) -> None:
    """Add `leyden fabric run` and `leyden fabric consolidate`."""
    parser = subparsers.add_parser(
        "fabric", help="start a Fabric script on several processes or machines", description="Run scripts that use Fabric."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="fabric_command", required=True)
    run_parser = commands.add_parser(
        "run",
        help="start a script on several processes or machines",
        usage="leyden fabric run SCRIPT [options] [--] [arguments of the script]",
        description="Start a script on several processes, through torchrun. Options that are not listed here, and everything after `--`, "
        "go to the script.",
        allow_abbrev=False,
    )
    _add_options(run_parser)
    run_parser.add_argument("script", metavar="SCRIPT", help="the Python file")
    run_parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="what the script gets")
    run_parser.set_defaults(run=run)
    consolidate_parser = commands.add_parser(
        "consolidate",
        help="merge a sharded checkpoint into one file",
        description="Merge a sharded checkpoint into one file; the same as `leyden ckpt consolidate`.",
    )
    consolidate_parser.add_argument("directory", metavar="DIR", help="the checkpoint")
    consolidate_parser.add_argument(
        "--output_file", "--output-file", metavar="FILE", help="where to; by default DIR.consolidated. Never overwritten."
    )
    consolidate_parser.set_defaults(run=consolidate)


def run(args: argparse.Namespace) -> int:
    """Become torchrun, which starts the script's processes. Returns only if that fails.

    Raises:
        ConfigError: A strategy that starts its processes itself, or a count that cannot be right.
        NotFoundError: The script is not there.
    """
    options, arguments = _split(args)
    if not Path(options.script).is_file():
        raise NotFoundError(f"the script {options.script!r} does not exist. Give the path of a Python file.")
    command, environ = plan_run(options, arguments, settings.environment())
    sys.stdout.flush()
    os.execve(command[0], command, environ)  # noqa: S606 - torchrun takes this process's place: no second parent to pass signals on


def consolidate(args: argparse.Namespace) -> int:
    """Merge a sharded checkpoint, as `leyden ckpt consolidate` does."""
    from leyden.cli.main import main

    return main(["ckpt", "consolidate", args.directory, *(["--output", args.output_file] if args.output_file else [])])


def plan_run(options: argparse.Namespace, arguments: Sequence[str], environ: Any) -> tuple[list[str], dict[str, str]]:
    """Return torchrun's command line and environment.

    Args:
        options: What `leyden fabric run` was given.
        arguments: What the script gets.
        environ: The environment to start from.

    Raises:
        ConfigError: A strategy that starts its processes itself, or a count that cannot be right.
    """
    _check_strategy(options.strategy)
    num_processes = _num_processes(options.devices, options.accelerator)
    num_nodes, node_rank = _nodes(options)
    variables = {f"LT_{name.upper()}": str(getattr(options, name)) for name in OPTIONS if getattr(options, name) is not None}
    variables["LT_CLI_USED"] = "1"
    ours = {name.replace("LT_", "LEYDEN_FABRIC_", 1) for name in variables}  # these would win over LT_…
    inherited = {name: value for name, value in environ.items() if name not in ours}
    inherited.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // num_processes)))  # else torchrun sets 1
    if num_nodes == 1 and options.main_port is None:
        place = ["--standalone"]  # a free port: two runs on one machine never clash
    else:
        place = [
            f"--node-rank={node_rank}",
            f"--master-addr={options.main_address}",
            f"--master-port={options.main_port or DEFAULT_PORT}",
        ]
    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *(f"--nnodes={num_nodes}", f"--nproc-per-node={num_processes}"),
        *place,
        options.script,
        *arguments,
    ]
    return command, {**inherited, **variables}


def _add_options(parser: argparse.ArgumentParser, *, only_given: bool = False) -> None:
    """Add the options; with `only_given`, those that are absent leave no trace in the result."""

    def add(name: str, default: Any, text: str, **more: Any) -> None:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        parser.add_argument(*spellings, default=argparse.SUPPRESS if only_given else default, help=text, **more)

    add("accelerator", None, "cpu, gpu, cuda, mps, xpu or auto", metavar="NAME")
    add("strategy", None, "such as ddp, fsdp or deepspeed", metavar="NAME")
    add("devices", "1", "devices per node: a number, ids such as 0,2, or auto", metavar="N")
    add("num-nodes", 1, "number of machines", type=int, metavar="N")
    add("node-rank", 0, "number of this machine, from 0", type=int, metavar="N")
    add("main-address", "127.0.0.1", "host name of machine 0", metavar="HOST")
    add("main-port", None, f"port on machine 0; {DEFAULT_PORT} with several machines, a free one otherwise", type=int, metavar="PORT")
    add("precision", None, "such as bf16-mixed or 16-true", metavar="NAME")


def _split(args: argparse.Namespace) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, also those after the script's name, and what is left for the script."""
    given: list[str] = list(args.arguments)
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(prog="leyden fabric run", add_help=False, allow_abbrev=False)
    _add_options(parser, only_given=True)
    options, rest = parser.parse_known_args(given[:end], argparse.Namespace(**vars(args)))
    return options, [*rest, *given[end + 1 :]]


def _check_strategy(strategy: str | None) -> None:
    for part in STARTS_ITS_OWN if strategy else ():
        if part in str(strategy).lower():
            raise ConfigError(
                f"--strategy={strategy} starts its processes itself, but here torchrun has started them. Use --strategy=ddp, "
                "or run the script with python."
            )


def _num_processes(devices: str, accelerator: str | None) -> int:
    """Return how many processes a node needs; torch is only asked where the answer depends on the machine."""
    text = devices.strip().lower()
    if text in ("auto", "-1"):
        return _all_devices(text, accelerator)
    try:
        ids = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise _bad_devices(devices) from None
    count = len(ids) if "," in text else next(iter(ids), 0)
    if count < 1:
        raise _bad_devices(devices)
    return count


def _bad_devices(devices: str) -> ConfigError:
    return ConfigError(f"--devices={devices} should be a number above 0, ids such as 0,2, or auto.")


def _all_devices(text: str, accelerator: str | None) -> int:
    from leyden.fabric.accelerators import accelerator_for, probe_machine  # torch

    probe = probe_machine()
    found = accelerator_for(accelerator, probe)
    devices: Any = found.parse_among(-1 if text == "-1" else text, probe.count_of(found))
    return len(found.get_parallel_devices(devices))


def _nodes(options: argparse.Namespace) -> tuple[int, int]:
    num_nodes, node_rank = options.num_nodes, options.node_rank
    if num_nodes < 1:
        raise ConfigError(f"--num-nodes={num_nodes} should be a number above 0.")
    if not 0 <= node_rank < num_nodes:
        raise ConfigError(f"--node-rank={node_rank}, but --num-nodes={num_nodes}: it should be from 0 to {num_nodes - 1}.")
    return num_nodes, node_rank


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
