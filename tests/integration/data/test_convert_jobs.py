"""Conversions that are killed go on by the same command, and end with the bytes of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.cli.main import main
from leyden.core.errors import ConfigError, ConflictError
from leyden.data import StreamingDataset, convert, delete_rows, optimize, train_test_split

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


@pytest.mark.parametrize(
    "to", ["leyden", pytest.param("litdata", marks=pytest.mark.long), "parquet", pytest.param("arrow", marks=pytest.mark.long)]
)
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


def ids(folder: Path) -> list[int]:
    return [row["id"] for row in StreamingDataset(str(folder))[:]]


@pytest.mark.parametrize("shuffle", [True, False])
def test_parts_of_a_dataset_become_datasets(source: Path, tmp_path: Path, shuffle: bool) -> None:
    whole = StreamingDataset(str(source))
    parts = train_test_split(whole, [0.6, 0.3], shuffle=shuffle)
    for number, part in enumerate(parts):
        made = convert(part, str(tmp_path / str(number)), chunk_bytes="16KB")
        assert made.num_rows == len(part)
        assert StreamingDataset(str(tmp_path / str(number)))[:] == part[:]
        assert convert(part, str(tmp_path / str(number)), chunk_bytes="16KB") == made
    assert not set(ids(tmp_path / "0")) & set(ids(tmp_path / "1"))
    kept = sum(path.stat().st_size for path in (tmp_path / "1").glob("*.ldc"))
    assert kept < sum(path.stat().st_size for path in source.glob("*.ldc")) / 2


def test_selections_that_cannot_be_written_are_refused(source: Path, tmp_path: Path) -> None:
    whole = StreamingDataset(str(source))
    assert convert(whole.subset(slice(10, 20)), str(tmp_path / "slice"), "litdata").num_rows == 10
    assert ids(tmp_path / "slice") == list(range(10, 20))
    for chosen in (whole.subset([5, 3]), StreamingDataset(str(source), subsample=2.0)):
        with pytest.raises(ConfigError, match="in another order than they are stored in, or some of them twice"):
            convert(chosen, str(tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()


def test_deleted_rows_are_in_no_part(tmp_path: Path) -> None:
    optimize(sample, list(range(50)), str(tmp_path / "all"), num_workers=0, verbose=False, block_rows=7)
    delete_rows(str(tmp_path / "all"), [0, 8, 9, 49])
    convert(StreamingDataset(str(tmp_path / "all")), str(tmp_path / "live"))
    assert ids(tmp_path / "live") == [number for number in range(50) if number not in {0, 8, 9, 49}]


def test_the_command_splits(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [str(tmp_path / name) for name in ("train", "val")]
    assert main(["data", "split", str(source), *places, "--splits", "0.9", "0.1", "--json"]) == 0
    assert [part["num_rows"] for part in json.loads(capsys.readouterr().out)] == [360, 40]
    assert sorted([*ids(tmp_path / "train"), *ids(tmp_path / "val")]) == list(range(ROWS))
    assert main(["data", "split", str(source), *places, "--splits", "0.9"]) == 2
    assert "1 fractions for 2 places" in capsys.readouterr().err
