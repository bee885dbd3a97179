"""Jobs in real processes: killed at every step, resumed, run by several drivers; always the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leyden import data as ld

_SCRIPT = """
import os, sys, threading
import numpy as np
from leyden import data as ld

def sample(number):
    mark = os.environ.get("KILL_ONCE")
    if mark and number == 77 and not os.path.exists(mark):
        open(mark, "x").close()
        os.kill(os.getpid(), 9)
    if os.environ.get("ALWAYS") and number == 77:
        os.kill(os.getpid(), 9)
    if os.environ.get("HANG") and number == 77:
        threading.Event().wait()
    if os.environ.get("EAT") and number == 77:
        eaten = bytearray(b"x") * 400_000_000
        threading.Event().wait()
    return {"id": number, "values": np.full(3, number, np.float32), "text": f"row {number}"}

if __name__ == "__main__":
    options = {"on_error": os.environ["POLICY"]} if "POLICY" in os.environ else {}
    if "HANG" in os.environ:
        options.update(timeout=0.5, retries=0)
    if "EAT" in os.environ:
        options.update(memory_limit="300MB", retries=0)
    report = ld.optimize(sample, inputs=range(200), output_dir=sys.argv[1], num_workers=int(sys.argv[2]), verbose=False, **options)
    print(report.num_rows, report.skipped, report.quarantined)
"""
_STEPS = (
    "data.lease.before:3",
    "data.unit.written:5",
    "data.pack.written",
    "data.done.before:4",
    "data.done.after:4",
    "data.finalise.before",
    "data.commit.before",
    "data.commit.between",
    "data.commit.after",
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(_SCRIPT, encoding="utf-8")
    return path


def _start(script: Path, output: Path, workers: int, **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(script), str(output), str(workers)]
    return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(script: Path, output: Path, workers: int, **variables: str) -> tuple[int, str, str]:
    with _start(script, output, workers, **variables) as process:
        said, errors = process.communicate(timeout=60)
        return process.returncode, said.strip(), errors


def _files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.ldc")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    (folder / "job.py").write_text(_SCRIPT, encoding="utf-8")
    status, said, errors = _run(folder / "job.py", folder / "out", 0)
    assert (status, said) == (0, "200 0 0"), errors
    return _files(folder / "out")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_do_not_depend_on_workers(script: Path, tmp_path: Path, expected: dict[str, bytes], workers: int) -> None:
    assert _run(script, tmp_path / "out", workers)[0] == 0
    assert _files(tmp_path / "out") == expected


@pytest.mark.parametrize("step", _STEPS)
def test_a_driver_killed_at_any_step_is_resumed_with_the_same_bytes(
    script: Path, tmp_path: Path, expected: dict[str, bytes], step: str
) -> None:
    output = tmp_path / "out"
    assert _run(script, output, 0, LEYDEN_FAILPOINT=f"{step}=kill")[0] == -signal.SIGKILL
    status, said, errors = _run(script, output, 0)
    assert (status, said) == (0, "200 0 0"), errors
    assert _files(output) == expected
    assert [row["id"] for row in ld.StreamingDataset(str(output))] == list(range(200))
    assert not list(output.glob(".chunk-*"))


def test_a_worker_killed_in_the_function_is_replaced(script: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    status, said, errors = _run(script, tmp_path / "out", 2, KILL_ONCE=str(tmp_path / "mark"))
    assert (status, said) == (0, "200 0 0"), errors
    assert _files(tmp_path / "out") == expected


def test_an_input_that_always_kills_its_worker_is_left_out_or_named(script: Path, tmp_path: Path) -> None:
    status, _, errors = _run(script, tmp_path / "raise", 2, ALWAYS="1")
    assert status == 1
    assert "input number 77 (77) could not be processed: its worker was ended by SIGKILL" in errors
    status, said, errors = _run(script, tmp_path / "skip", 2, ALWAYS="1", POLICY="quarantine")
    assert (status, said) == (0, "199 0 1"), errors
    assert 77 not in [row["id"] for row in ld.StreamingDataset(str(tmp_path / "skip"))]
    assert len(list((tmp_path / "skip").glob("_leyden/quarantine/*/77.json"))) == 1


def test_three_drivers_share_a_job(script: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    place = [{"RANK": str(rank), "WORLD_SIZE": "3"} for rank in range(3)]
    drivers = [_start(script, tmp_path / "out", 0, **variables) for variables in place]
    said = [driver.communicate(timeout=90) for driver in drivers]
    assert [(driver.returncode, out.strip()) for driver, (out, _) in zip(drivers, said, strict=True)] == [(0, "200 0 0")] * 3, said
    assert _files(tmp_path / "out") == expected


@pytest.mark.parametrize(("fault", "said"), [("HANG", "it took longer than timeout=0.5 seconds"), ("EAT", "held more than memory_limit=")])
def test_an_input_that_hangs_or_eats_memory_is_named(script: Path, tmp_path: Path, fault: str, said: str) -> None:
    status, _, errors = _run(script, tmp_path / "raise", 2, **{fault: "1"})
    assert status == 1
    assert "input number 77 (77) could not be processed: " in errors
    assert said in errors
    assert _run(script, tmp_path / "skip", 2, POLICY="skip", **{fault: "1"})[:2] == (0, "199 1 0")


def test_the_units_of_a_killed_driver_are_taken_over(script: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    first = _start(script, tmp_path / "out", 0, RANK="0", WORLD_SIZE="2", LEYDEN_FAILPOINT="data.unit.written:5=kill")
    second = _start(script, tmp_path / "out", 0, RANK="1", WORLD_SIZE="2")
    said, errors = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert (second.returncode, said.strip()) == (0, "200 0 0"), errors
    assert _files(tmp_path / "out") == expected


def test_a_script_without_guard_is_told_at_once(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text("import leyden.data as ld\nld.optimize(str, [1, 2], 'out', num_workers=1)\n")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert '__name__ == "__main__"' in done.stderr.strip().splitlines()[-1]
    assert done.stderr.count("Traceback") <= 3, "no worker is started again and again"
