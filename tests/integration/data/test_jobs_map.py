"""`map`: files by input, private until all are done; killed and resumed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leyden import data as ld
from leyden.core.errors import ConflictError
from leyden.data.errors import UnitFailedError

_SCRIPT = """
import sys
from pathlib import Path
from leyden import data as ld

def write(number, output_dir):
    Path(output_dir, "deep").mkdir()
    Path(output_dir, "deep", f"{number}.txt").write_text(str(number))

if __name__ == "__main__":
    print(ld.map(write, range(100), sys.argv[1], num_workers=int(sys.argv[2])).num_chunks)
"""


def _write(number: int, output_dir: str) -> None:
    if number == 3:
        raise ValueError("no three")
    Path(output_dir, f"{number}.txt").write_text(str(number), encoding="utf-8")


def _same(number: int, output_dir: str) -> None:
    Path(output_dir, "same.txt").write_text(str(number), encoding="utf-8")


def _names(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.txt"))


@pytest.mark.parametrize("workers", [0, 2])
def test_failed_inputs_leave_nothing(tmp_path: Path, workers: int) -> None:
    report = ld.map(_write, range(6), str(tmp_path), num_workers=workers, on_error="skip")
    assert (report.num_rows, report.num_chunks, report.skipped) == (5, 5, 1)
    assert _names(tmp_path) == ["0.txt", "1.txt", "2.txt", "4.txt", "5.txt"]
    with pytest.raises(UnitFailedError, match="input number 3"):
        ld.map(_write, range(6), str(tmp_path / "other"), num_workers=workers)


def test_two_inputs_may_not_write_one_path(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=r"inputs 0 and 1 both wrote same\.txt"):
        ld.map(_same, range(2), str(tmp_path), num_workers=0)


@pytest.mark.parametrize("step", ["data.unit.written:3", "data.done.after:9", "data.map.move:50"])
def test_a_killed_map_goes_on(tmp_path: Path, step: str) -> None:
    script, output = tmp_path / "job.py", tmp_path / "out"
    script.write_text(_SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(output), "0"]
    killed = subprocess.run(command, env={**os.environ, "LEYDEN_FAILPOINT": f"{step}=kill"}, capture_output=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    assert (again.returncode, again.stdout.strip()) == (0, "100"), again.stderr
    assert _names(output) == sorted(f"deep/{number}.txt" for number in range(100))
