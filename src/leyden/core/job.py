"""What a process may know of the job it runs in: the contract between `compute` and everything that runs inside it.

The supervisor of a job sets the variables `LEYDEN_…`; a request to stop appears as the file `stop.json` in the attempt's
directory; metrics are lines appended to `metrics.jsonl`. So any part can read this without importing `compute`, and a
script of another origin can do the same by hand. A job that must leave its machine exits with `EXIT_PREEMPTED`.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, CorruptDataError, listed
from leyden.core.files import storage_error

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: "I saved my state, start me again"; costs no failure budget

STOP_REASONS = ("preempted", "pruned", "user", "timeout", "peer_failed", "gang_incomplete")
_FORMAT = 1
_PATHS = ("LEYDEN_STEP_DIR", "LEYDEN_OUTPUT_DIR", "LEYDEN_ATTEMPT_DIR", "LEYDEN_METRICS_FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job, attempt and rank that this process is. Get it from `current_job()`.

    Args:
        id: Unique, and the same for all attempts.
        name: What its user calls it.
        attempt: Which start of the job this is, from 1.
        step_dir: A directory that all attempts share; checkpoints belong here.
        output_dir: A directory whose files are collected.
        attempt_dir: The directory of this attempt, where `stop.json` appears.
        metrics_file: The file that `report` appends to.
        node_rank: The number of this node, from 0.
        num_nodes: How many nodes the job has.
        node_addresses: Their addresses, in the order of their numbers.
        accelerators_per_node: The accelerators that each node may use.
        rank: This process's number over all nodes.
        world_size: The number of processes over all nodes; without a launcher that says so, one per node.
        grace_seconds: The time between SIGTERM and SIGKILL.
        interruptible: Whether the machine may be taken away.
        is_reporter: Whether `report` writes; rank 0 does. `dataclasses.replace(job, is_reporter=True)` lets another rank.
    """

    id: str
    name: str
    attempt: int
    step_dir: Path
    output_dir: Path
    attempt_dir: Path
    metrics_file: Path
    node_rank: int
    num_nodes: int
    node_addresses: tuple[str, ...]
    accelerators_per_node: int
    rank: int
    world_size: int
    grace_seconds: float
    interruptible: bool
    is_reporter: bool

    def stop_reason(self) -> str | None:
        """Return why this attempt was asked to stop, or `None`. Costs one `open`; call it a few times a second.

        Raises:
            CorruptDataError: `stop.json` is not what a supervisor writes.
        """
        path = self.attempt_dir / "stop.json"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:  # absent; or the shared file system does not answer, which is no evidence of anything
            return None
        except UnicodeDecodeError as error:
            raise CorruptDataError(f"{str(path)!r} is not text. {_FOREIGN}") from error
        try:
            reason = _read_stop(json.loads(text))
        except ValueError as error:
            raise CorruptDataError(f"{str(path)!r} cannot be read: {error}. {_FOREIGN}") from error
        return reason

    def report(self, step: int | None = None, /, **metrics: SupportsFloat) -> None:
        """Append metrics to the job's record, where `leyden jobs` and the pages find them; only rank 0 writes.

        `step` may also be given as a keyword. The name `progress` (0 to 1) draws a bar. A line is one `write`: lines of
        several processes never mix.

        Args:
            step: The training step they belong to.
            metrics: Name → number, or anything `float()` takes; NaN and infinities are kept.

        Raises:
            ConfigTypeError: A value is no number, or the step no integer.
            StorageError: The file cannot be written.

        Example:
            ```python
            job.report(step=100, **{"val/loss": 0.31, "progress": 0.5})
            ```
        """
        named = dict(metrics)
        at = named.pop("step", step)
        lines = _lines(at, named)
        if not self.is_reporter:
            return
        try:
            descriptor = os.open(self.metrics_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                for line in lines:
                    os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error, self.metrics_file, sum(map(len, lines))) from error


def current_job(environ: Mapping[str, str] | None = None) -> Job | None:
    """Return the job that this process runs in, or `None` outside of one.

    Args:
        environ: The mapping to read; the process's environment if absent.

    Raises:
        ConfigError: `LEYDEN_JOB_ID` is set, but other variables of the contract are missing or malformed.
    """
    environ = settings.environment() if environ is None else environ
    job_id = settings.get("LEYDEN_JOB_ID", environ)
    if job_id is None:
        return None
    missing = [name for name in _PATHS if settings.source(name, environ) is None]
    if missing:
        raise ConfigError(
            f"LEYDEN_JOB_ID={job_id!r} says that this process runs in a job, but these are not set: {listed(missing)}. "
            "Set them too, or unset LEYDEN_JOB_ID."
        )
    step_dir, output_dir, attempt_dir, metrics_file = (settings.get(name, environ) for name in _PATHS)
    node_rank, num_nodes = settings.get("LEYDEN_NODE_RANK", environ), settings.get("LEYDEN_NUM_NODES", environ)
    world_size = _integer("WORLD_SIZE", environ, num_nodes)
    # Children that the job's own script starts get LOCAL_RANK and WORLD_SIZE, but not always RANK.
    rank = _integer("RANK", environ, node_rank * (world_size // max(num_nodes, 1)) + _integer("LOCAL_RANK", environ, 0))
    return Job(
        id=job_id,
        name=settings.get("LEYDEN_JOB_NAME", environ) or job_id,
        attempt=settings.get("LEYDEN_ATTEMPT", environ),
        step_dir=step_dir,
        output_dir=output_dir,
        attempt_dir=attempt_dir,
        metrics_file=metrics_file,
        node_rank=node_rank,
        num_nodes=num_nodes,
        node_addresses=tuple(filter(None, (settings.get("LEYDEN_NODE_ADDRESSES", environ) or "").split(","))),
        accelerators_per_node=settings.get("LEYDEN_ACCELERATORS_PER_NODE", environ),
        rank=rank,
        world_size=world_size,
        grace_seconds=settings.get("LEYDEN_GRACE_SECONDS", environ),
        interruptible=settings.get("LEYDEN_INTERRUPTIBLE", environ),
        is_reporter=rank == 0,
    )


_FOREIGN = "Only the supervisor of a job writes this file; look for what else did."


def _read_stop(record: object) -> str:
    """Return the reason of a decoded `stop.json`, or raise `ValueError` with what is wrong."""
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    if record.get("format") != _FORMAT:
        raise ValueError(f"its format is {record.get('format')!r}, and this version of Leyden reads {_FORMAT}")
    reason = record.get("reason")
    if not isinstance(reason, str) or not reason:
        raise ValueError(f"its reason is {reason!r}, and it should be one of {listed(STOP_REASONS)}")
    return reason


def _lines(step: object, metrics: Mapping[str, object]) -> list[bytes]:
    if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
        raise ConfigTypeError(f"step={step!r} is not accepted: it takes an integer or None.")
    now = int(time.time() * 1000)
    head = {"t": now} if step is None else {"t": now, "step": step}
    return [json.dumps({**head, "name": name, "value": _number(name, value)}).encode() + b"\n" for name, value in metrics.items()]


def _number(name: str, value: object) -> int | float | str:
    if isinstance(value, int):
        return int(value)  # a bool too
    try:
        number = float(value)  # type: ignore[arg-type] - the error below is about what float() refuses
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigTypeError(f"metric {name!r}={value!r} is not accepted: it takes one number, such as a mean.") from error
    return number if math.isfinite(number) else str(number)  # JSON has no NaN: "nan", "inf", "-inf"


def _integer(name: str, environ: Mapping[str, str], default: int) -> int:
    text = environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise ConfigError(f"{name}={text!r} is not accepted: it takes an integer ≥ 0. Launchers set it; unset it otherwise.")
    return int(text) if text else default
