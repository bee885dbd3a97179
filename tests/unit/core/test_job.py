"""The job contract: variables in, stop file in, metrics out."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, CorruptDataError, StorageError
from leyden.core.job import EXIT_PREEMPTED, STOP_REASONS, Job, current_job
from tests.support.jobs import job_environ


def job(root: Path, **changes: str) -> Job:
    found = current_job(job_environ(root, **changes))
    assert found is not None
    return found


def records(of: Job) -> list[dict[str, object]]:
    return [json.loads(line) for line in of.metrics_file.read_text().splitlines()]


def test_outside_of_a_job_there_is_none() -> None:
    assert current_job({}) is None


def test_the_exit_status_of_a_preempted_job_is_75() -> None:
    assert EXIT_PREEMPTED == 75


def test_the_process_environment_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in job_environ(tmp_path).items():
        monkeypatch.setenv(name, value)
    found = current_job()
    assert found is not None
    assert found.step_dir == tmp_path / "step"


def test_every_variable_reaches_its_field(tmp_path: Path) -> None:
    found = job(
        tmp_path,
        LEYDEN_ATTEMPT="3",
        LEYDEN_NODE_RANK="1",
        LEYDEN_NUM_NODES="2",
        LEYDEN_NODE_ADDRESSES="10.0.0.1,10.0.0.2",
        LEYDEN_ACCELERATORS_PER_NODE="8",
        LEYDEN_GRACE_SECONDS="12.5",
        LEYDEN_INTERRUPTIBLE="1",
        RANK="9",
        WORLD_SIZE="16",
    )
    assert (found.id, found.name, found.attempt, found.node_rank, found.num_nodes) == ("job-1", "demo", 3, 1, 2)
    assert (found.rank, found.world_size, found.accelerators_per_node) == (9, 16, 8)
    assert found.node_addresses == ("10.0.0.1", "10.0.0.2")
    assert (found.grace_seconds, found.interruptible, found.is_reporter) == (12.5, True, False)
    assert (found.output_dir, found.attempt_dir) == (tmp_path / "outputs", tmp_path / "attempts" / "1")


@pytest.mark.parametrize(
    ("variables", "rank", "world_size"),
    [
        ({}, 0, 1),
        ({"LEYDEN_NODE_RANK": "1", "LEYDEN_NUM_NODES": "2"}, 1, 2),
        ({"LOCAL_RANK": "3", "WORLD_SIZE": "4"}, 3, 4),
        ({"LEYDEN_NODE_RANK": "1", "LEYDEN_NUM_NODES": "2", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, 5, 8),
        ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 2, 4),
    ],
)
def test_rank_and_world_size_follow_the_launcher(tmp_path: Path, variables: dict[str, str], rank: int, world_size: int) -> None:
    found = job(tmp_path, **variables)
    assert (found.rank, found.world_size, found.is_reporter) == (rank, world_size, rank == 0)


def test_half_a_contract_is_refused_by_name(tmp_path: Path) -> None:
    environ = job_environ(tmp_path)
    del environ["LEYDEN_STEP_DIR"]
    with pytest.raises(ConfigError, match="not set: 'LEYDEN_STEP_DIR'"):
        current_job(environ)


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "LEYDEN_ATTEMPT"])
def test_a_malformed_number_is_refused_by_name(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}='x'"):
        job(tmp_path, **{variable: "x"})


def test_without_a_stop_file_nobody_asked_to_stop(tmp_path: Path) -> None:
    assert job(tmp_path).stop_reason() is None


@pytest.mark.parametrize("reason", STOP_REASONS)
def test_the_stop_file_holds_the_reason(tmp_path: Path, reason: str) -> None:
    found = job(tmp_path)
    (found.attempt_dir / "stop.json").write_text(json.dumps({"format": 1, "reason": reason, "grace": 60, "by": "test"}))
    assert found.stop_reason() == reason


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 2, "reason": "user"}', b'{"format": 1}', b'{"format": 1, "reason": 3}', b"\xff\xfe"]
)
def test_a_damaged_stop_file_is_named(tmp_path: Path, content: bytes) -> None:
    found = job(tmp_path)
    (found.attempt_dir / "stop.json").write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"stop\.json"):
        found.stop_reason()


def test_an_unreachable_stop_file_is_no_evidence(tmp_path: Path) -> None:
    found = job(tmp_path)
    (found.attempt_dir / "stop.json").mkdir()  # reading it fails, as on a file system that does not answer
    assert found.stop_reason() is None


def test_each_metric_is_one_line(tmp_path: Path) -> None:
    found = job(tmp_path)
    found.report(step=100, **{"val/loss": 0.25, "progress": 1})
    found.report(lr=1e-3)
    lines = records(found)
    assert [(line.get("step"), line["name"], line["value"]) for line in lines] == [
        (100, "val/loss", 0.25),
        (100, "progress", 1),
        (None, "lr", 1e-3),
    ]
    assert all(isinstance(line["t"], int) and line["t"] > 1.5e12 for line in lines)


def test_nan_and_infinities_are_text_that_float_reads(tmp_path: Path) -> None:
    found = job(tmp_path)
    found.report(0, a=math.nan, b=math.inf, c=-math.inf)
    assert [line["value"] for line in records(found)] == ["nan", "inf", "-inf"]


def test_only_rank_zero_reports_unless_told(tmp_path: Path) -> None:
    found = job(tmp_path, RANK="1", WORLD_SIZE="2")
    found.report(step=1, loss=1.0)
    assert not found.metrics_file.exists()
    replace(found, is_reporter=True).report(step=1, loss=1.0)
    assert len(records(found)) == 1


@pytest.mark.parametrize("value", ["high", None, [1.0, 2.0]])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, value: object) -> None:
    found = job(tmp_path)
    with pytest.raises(ConfigTypeError, match="metric 'loss'"):
        found.report(step=1, good=1.0, loss=value)  # type: ignore[arg-type]
    assert not found.metrics_file.exists()


@pytest.mark.parametrize("step", [1.5, "3", True])
def test_a_step_is_an_integer(tmp_path: Path, step: object) -> None:
    with pytest.raises(ConfigTypeError, match="step="):
        job(tmp_path).report(step, loss=1.0)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    found = job(tmp_path, LEYDEN_METRICS_FILE=os.fspath(tmp_path / "absent" / "metrics.jsonl"))
    with pytest.raises(StorageError, match="absent"):
        found.report(step=1, loss=1.0)
