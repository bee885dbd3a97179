"""A fit inside a Leyden job: told to leave, it saves, exits with 75, and the next attempt goes on where it stopped."""

import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from leyden.fabric.checkpoint import read
from tests.support import job_fit
from tests.support.jobs import job_environ
from tests.support.processes import Script, running_script
from tests.support.ranks import run_ranks


class Job:
    """A job's attempts, one after the other.

    Args:
        root: Where everything lies.
        options: Of the trainer.
    """

    def __init__(self, root: Path, **options: Any) -> None:
        self.root, self.options = root, options
        self.number = 0
        (root / "unbroken").mkdir()

    def start(self, **variables: str) -> AbstractContextManager[Script]:
        """Start the next attempt, which has no end, as a process of its own."""
        args = [str(self.root), "-1", json.dumps(self.options)]
        return running_script(Path(job_fit.__file__), args=args, env=self.environ(**variables))

    def go_on(self, total: int) -> list[Any]:
        """Run the next attempt until `total` steps; return how it ends, and how the fit ends unbroken, on rank 0."""
        ranks = self.options.get("devices", 1)
        options = {**self.options, "strategy": "ddp"} if ranks > 1 else self.options
        return run_ranks(job_fit.continued, ranks, args=(self.root, total, options), env=self.environ(), join=ranks > 1)[0]

    def environ(self, **variables: str) -> dict[str, str]:
        self.number += 1
        self.stop_file.unlink(missing_ok=True)
        return job_environ(self.root / "job", LEYDEN_ATTEMPT=str(self.number), **variables)

    def tell(self, reason: str) -> None:
        """Ask the running attempt to stop, as a supervisor does."""
        self.stop_file.with_suffix(".writing").write_text(json.dumps({"format": 1, "reason": reason}))
        self.stop_file.with_suffix(".writing").replace(self.stop_file)

    @property
    def stop_file(self) -> Path:
        return self.root / "job" / "attempts" / "1" / "stop.json"

    @property
    def checkpoint(self) -> Path:
        return self.root / "job" / "step" / "trainer" / "last.ckpt"

    def steps(self, folder: str = ".", rank: int = 0) -> list[list[Any]]:
        """Return (attempt, step, samples) of every batch."""
        return [json.loads(line) for line in (self.root / folder / f"steps-{rank}").read_text().splitlines()]

    def reported(self) -> list[float]:
        """Return what the job was told of progress."""
        lines = (self.root / "job" / "attempts" / "1" / "metrics.jsonl").read_text().splitlines()
        return [line["value"] for line in map(json.loads, lines) if line["name"] == "progress"]


@pytest.mark.parametrize(
    ("options", "told"),
    [({}, "file"), ({}, "signal"), ({"strategy": "ddp", "devices": 2}, "file"), ({"strategy": "ddp_fork", "devices": 2}, "signal")],
    ids=["file", "signal", "two ranks, file", "forked, signal"],
)
def test_a_preempted_fit_exits_with_75_and_goes_on_in_the_next_attempt(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    job, ranks = Job(tmp_path, **options), options.get("devices", 1)
    with job.start() as script:
        script.wait_for_output("running", ranks)
        job.tell("preempted") if told == "file" else script.send(signal.SIGTERM)
        finished = script.wait()
        script.wait_until_gone()
    assert finished.code == 75, finished.stderr
    assert "Traceback" not in finished.stderr
    stopped = read(job.checkpoint)["global_step"]
    assert [job.steps(rank=rank)[-1][1] for rank in range(ranks)] == [stopped] * ranks
    ended, unbroken = job.go_on(stopped + 10)
    assert ended == unbroken
    for rank in range(ranks):
        assert [attempt for attempt, _, _ in job.steps(rank=rank)] == [1] * stopped + [2] * 10
        assert [samples for _, _, samples in job.steps(rank=rank)] == [samples for _, _, samples in job.steps("unbroken", rank)]


@pytest.mark.parametrize("reason", ["pruned", "user"])
def test_a_fit_that_nobody_wants_ends_as_if_it_were_over(tmp_path: Path, reason: str) -> None:
    job = Job(tmp_path)
    with job.start() as script:
        script.wait_for_output("running")
        job.tell(reason)
        if reason == "user":
            script.send(signal.SIGTERM)
        finished = script.wait()
    assert finished.code == 0, finished.stderr
    assert (tmp_path / "ended").exists()
    assert not job.checkpoint.exists()
    assert job.reported() == [1.0]


def test_a_killed_fit_goes_on_from_what_was_saved_every_so_many_seconds(tmp_path: Path) -> None:
    job = Job(tmp_path, logger=True)
    with job.start(LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS="0.2") as script:
        script.wait_for(job.checkpoint.exists, "a checkpoint of the job")
        script.send(signal.SIGKILL)
        assert script.wait().code == -signal.SIGKILL
    kept = read(job.checkpoint)["global_step"]
    ended, unbroken = job.go_on(kept + 10)
    assert ended == unbroken
    assert [step for attempt, step, _ in job.steps() if attempt == 2] == list(range(kept + 1, kept + 11))
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]  # the first attempt's
    assert job.reported()[-1] == 1.0
