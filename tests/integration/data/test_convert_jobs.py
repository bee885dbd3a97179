"""Conversions that are killed go on by the same command, and end with the bytes of one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.core.errors import ConflictError
from leyden.data import StreamingDataset, convert, optimize

ROWS = 400
SCRIPT = """
import sys
from leyden.data import convert

if __name__ == "__main__":
    source, target, to, workers = sys.argv[1:]
    made = convert(source, target, to, chunk_bytes="16KB", num_workers=int(workers), progress=False)
    print(made.num_rows, len(made.files))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "train"
    optimize(sample, list(range(ROWS)), str(folder), num_workers=0, verbose=False, block_bytes="4KB", chunk_bytes="64KB")
    return folder


def sample(index: int) -> dict[str, object]:
    return {"id": index, "text": f"row {index}", "raw": bytes([index % 251]) * 200}


def run(script: Path, source: Path, target: Path, to: str, workers: int, **variables: str) -> tuple[int, str]:
    command = [sys.executable, str(script), str(source), str(target), to, str(workers)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("to", ["leyden", "litdata", "parquet", "arrow"])
def test_killed_conversions_go_on_and_end_with_the_same_bytes(source: Path, tmp_path: Path, to: str) -> None:
    script = tmp_path / "convert.py"
    script.write_text(SCRIPT)
    assert run(script, source, tmp_path / "whole", to, 2)[0] == 0
    steps = ["data.unit.written:2", "data.done.after:3", "data.map.move:2", *(["data.commit.between"] if to == "leyden" else [])]
    for step in steps:
        assert run(script, source, tmp_path / "killed", to, 0, LEYDEN_FAILPOINT=f"{step}=kill")[0] == -signal.SIGKILL, step
    code, output = run(script, source, tmp_path / "killed", to, 2)
    assert (code, output.split()[0]) == (0, str(ROWS))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) > 4
    assert not list((tmp_path / "killed").rglob("*/convert/*.json"))
    assert run(script, source, tmp_path / "killed", to, 0) == (0, output)  # it is done


def test_the_rows_are_those_of_the_source(source: Path, tmp_path: Path) -> None:
    for to in ("leyden", "litdata"):
        convert(str(source), str(tmp_path / to), to, chunk_bytes="16KB", num_workers=0)  # type: ignore[arg-type]
        assert StreamingDataset(str(tmp_path / to))[:] == StreamingDataset(str(source))[:]


def test_another_conversion_is_no_place_to_go_on_in(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "out"), "parquet")
    with pytest.raises(ConflictError, match="is not empty"):
        convert(str(source), str(tmp_path / "out"), "parquet", chunk_bytes="1KB")
