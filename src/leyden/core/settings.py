"""Settings from the environment: the one place of Leyden that reads it.

Every variable is a row of `SETTINGS`, with its kind, its default and the names that other projects gave it (aliases,
read after ours). An empty variable counts as unset. A variable `LEYDEN_…` that no row knows is reported once, with the
closest known name, so that a typo is never silently ignored.

Whoever needs another variable of the process (`RANK`, `SLURM_PROCID`, …) takes the mapping from `environment()`, or
better: takes a mapping as an argument, so that its rules can be tested as functions of a dictionary.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from leyden.core.errors import ConfigError, closest, listed

PREFIX = "LEYDEN_"


class Setting(NamedTuple):
    """One variable of the environment.

    Args:
        name: The variable, `LEYDEN_…`.
        kind: How its text is read: `str`, `int`, `float`, `bool`, `path`, or `choice` (one of `choices`, in any case).
        default: What is read when neither the variable nor an alias is set.
        help: One line for the reference.
        aliases: Names that are read after `name`, in this order.
        choices: What `choice` accepts, in lower case.
    """

    name: str
    kind: str
    default: str | None
    help: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


SETTINGS: tuple[Setting, ...] = (
    Setting("LEYDEN_HOME", "path", "~/.leyden", "Where Leyden keeps jobs, caches and its database."),
    Setting(
        "LEYDEN_LOG_LEVEL",
        "choice",
        "warning",
        "The least severe log record that command line programs show.",
        choices=("debug", "info", "warning", "error", "critical"),
    ),
    Setting(
        "LEYDEN_LOG_FORMAT",
        "choice",
        "text",
        "How programs write log records: `text`, `json` (one object a line), or `rich` (in colours).",
        choices=("text", "json", "rich"),
    ),
    Setting("LEYDEN_FAILPOINT", "str", None, "Faults to inject in tests: `name[:hit]=action`, separated by commas."),
    Setting("LEYDEN_GLOBAL_SEED", "int", None, "The seed that `seed_everything()` takes when it is given none.", ("PL_GLOBAL_SEED",)),
    Setting("LEYDEN_SEED_WORKERS", "bool", "false", "Whether data loader workers are seeded too.", ("PL_SEED_WORKERS",)),
    Setting("LEYDEN_FABRIC_ACCELERATOR", "str", None, "Replaces `Fabric(accelerator=…)`.", ("LT_ACCELERATOR",)),
    Setting("LEYDEN_FABRIC_STRATEGY", "str", None, "Replaces `Fabric(strategy=…)`.", ("LT_STRATEGY",)),
    Setting("LEYDEN_FABRIC_DEVICES", "str", None, "Replaces `Fabric(devices=…)`.", ("LT_DEVICES",)),
    Setting("LEYDEN_FABRIC_NUM_NODES", "int", None, "Replaces `Fabric(num_nodes=…)`.", ("LT_NUM_NODES",)),
    Setting("LEYDEN_FABRIC_PRECISION", "str", None, "Replaces `Fabric(precision=…)`.", ("LT_PRECISION",)),
    Setting("LEYDEN_FABRIC_CLI_USED", "bool", "false", "Set by `leyden fabric run`: the processes exist already.", ("LT_CLI_USED",)),
    Setting("LEYDEN_FABRIC_VERIFY", "bool", "false", "Check the checksums of a checkpoint's files on every load."),
    Setting("LEYDEN_FABRIC_CHECK_COLLECTIVES", "bool", "false", "Compare names and shapes on all ranks before each collective."),
    Setting("LEYDEN_FABRIC_ERROR_FILE", "path", None, "Set by the launcher: where a rank leaves its error."),
    Setting(
        "LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS",
        "float",
        "600",
        "Inside a job: how often `Trainer.fit` saves what the next attempt goes on from; 0 is only when it is told to leave.",
    ),
    Setting(
        "LEYDEN_DATA_CACHE_DIR",
        "path",
        None,
        "The cache of remote datasets, shared by all processes of a node; by default `leyden/data` in the user's cache folder.",
        ("LITDATA_CACHE_DIR",),
    ),
    Setting(
        "LEYDEN_DATA_CACHE_BYTES",
        "str",
        None,
        "How much that cache may hold: `100GB`, a number of bytes, or a fraction of the free disk such as `0.5`.",
        ("MAX_CACHE_SIZE",),
    ),
    Setting("LEYDEN_DATA_TIME", "str", None, "The time that all drivers of a job put into a template such as `{%Y-%m-%d}`."),
    Setting("LEYDEN_DEEPSPEED_CONFIG", "path", None, "The DeepSpeed configuration file.", ("PL_DEEPSPEED_CONFIG_PATH",)),
    Setting(
        "LEYDEN_SERVE_API_KEY",
        "str",
        None,
        "The keys of which a request to a server needs one, separated by commas.",
        ("LIT_SERVER_API_KEY",),
    ),
    Setting(
        "LEYDEN_SERVE_SHUTDOWN_KEY",
        "str",
        None,
        "The key that stops a server with `enable_shutdown_api=True`; made up and logged if it is missing.",
        ("LIT_SHUTDOWN_API_KEY",),
    ),
    Setting("LEYDEN_SERVE_DEBUG", "str", None, "`1` lets `set_trace_if_debug()` stop in the debugger.", ("LITSERVE_DEBUG",)),
    Setting("LEYDEN_SERVE_TLS_CERT", "str", None, "A server's certificate: PEM in base64.", ("LIGHTNING_CERT_PEM",)),
    Setting("LEYDEN_SERVE_TLS_KEY", "str", None, "The private key of that certificate: PEM in base64.", ("LIGHTNING_KEY_FILE",)),
    # What the supervisor of `compute` tells the processes of a job; `core.job` reads them.
    Setting("LEYDEN_JOB_ID", "str", None, "Set inside a job: its id."),
    Setting("LEYDEN_JOB_NAME", "str", None, "Set inside a job: its name."),
    Setting("LEYDEN_ATTEMPT", "int", "1", "Set inside a job: the number of this attempt, from 1."),
    Setting("LEYDEN_STEP_DIR", "path", None, "Set inside a job: a directory that outlives the attempt; checkpoints go here."),
    Setting("LEYDEN_OUTPUT_DIR", "path", None, "Set inside a job: the directory whose files are collected."),
    Setting("LEYDEN_ATTEMPT_DIR", "path", None, "Set inside a job: the directory of this attempt; a request to stop appears here."),
    Setting("LEYDEN_METRICS_FILE", "path", None, "Set inside a job: the file that metrics are appended to."),
    Setting("LEYDEN_NODE_RANK", "int", "0", "Set inside a job: the number of this node, from 0."),
    Setting("LEYDEN_NUM_NODES", "int", "1", "Set inside a job: how many nodes it has."),
    Setting("LEYDEN_NODE_ADDRESSES", "str", None, "Set inside a job: the nodes' addresses, separated by commas."),
    Setting("LEYDEN_ACCELERATORS_PER_NODE", "int", "0", "Set inside a job: the accelerators that each node may use."),
    Setting("LEYDEN_GRACE_SECONDS", "float", "60", "Set inside a job: the time between SIGTERM and SIGKILL."),
    Setting("LEYDEN_INTERRUPTIBLE", "bool", "false", "Set inside a job: whether its machine may be taken away."),
)

# Families whose names are made from a part's arguments; that part checks them.
PREFIXES: Mapping[str, str] = {"LEYDEN_TRAINER_": "`LEYDEN_TRAINER_<ARGUMENT>`: a default for an argument of `Trainer`."}

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_PARSERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "any text"),
    "int": (int, "an integer"),
    "float": (float, "a number"),
    "bool": (lambda text: _BOOLEANS[text.lower()], f"one of {listed(_BOOLEANS)}"),
    "path": (lambda text: Path(text).expanduser(), "a path"),
}
_reported: set[str] = set()  # names already warned about: once per process, however many parts ask
_claimed: set[str] = set()


def environment() -> MutableMapping[str, str]:
    """Return the environment of this process, which can also be written to."""
    return os.environ


def get(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """Return the value of a setting, of the row's kind, or its default.

    Args:
        name: A name of `SETTINGS`; its aliases are looked at too.
        environ: The mapping to read; the process's environment if absent.

    Raises:
        ConfigError: The variable's text is not of its kind, or no setting has this name.

    Example:
        >>> get("LEYDEN_NUM_NODES", {"LEYDEN_NUM_NODES": "4"})
        4
    """
    setting = _setting(name)
    if environ is None:
        environ = environment()
        report_unknown(environ)
    variable = source(name, environ)
    if variable is None:
        return None if setting.default is None else _parse(setting, name, setting.default)
    return _parse(setting, variable, environ[variable].strip())


def source(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return which variable gives a setting its value (the name itself or an alias), or `None` if none is set.

    Example:
        >>> source("LEYDEN_GLOBAL_SEED", {"PL_GLOBAL_SEED": "7"})
        'PL_GLOBAL_SEED'
    """
    setting = _setting(name)
    environ = environment() if environ is None else environ
    return next((variable for variable in (setting.name, *setting.aliases) if environ.get(variable, "").strip()), None)


def report_unknown(environ: Mapping[str, str]) -> None:
    """Warn about each variable `LEYDEN_…` of `environ` that no setting knows; each name once per process."""
    for variable in environ:
        if variable.startswith(PREFIX) and not (variable in _BY_NAME or variable in _reported or variable in _claimed):
            _reported.add(variable)
            if not variable.startswith(tuple(PREFIXES)):
                hint = closest(variable, _BY_NAME) or " docs/reference/settings.md lists the settings."
                warnings.warn(f"the environment variable {variable} has no effect: Leyden knows no such setting.{hint}", stacklevel=3)


def claim(names: Iterable[str]) -> None:
    """Take note of variables that the program's own command line reads: nobody reports them as unknown."""
    _claimed.update(names)


def is_claimed(name: str) -> bool:
    """Return whether the program's own command line reads this variable."""
    return name in _claimed


def _setting(name: str) -> Setting:
    if name not in _BY_NAME:
        raise ConfigError(f"{name!r} is not a setting.{closest(name, _BY_NAME)} The settings are {listed(_BY_NAME)}.")
    return _BY_NAME[name]


def _parse(setting: Setting, variable: str, text: str) -> Any:
    if setting.kind == "choice":
        if text.lower() in setting.choices:
            return text.lower()
        hint = closest(text, setting.choices)
        raise ConfigError(f"{variable}={text!r} is not accepted: it takes one of {listed(setting.choices)}.{hint} Or unset {variable}.")
    parser, accepted = _PARSERS[setting.kind]
    try:
        return parser(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{variable}={text!r} is not accepted: it takes {accepted}. Correct it, or unset {variable}.") from error
