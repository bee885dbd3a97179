"""The examples of data run as scripts, and do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "data"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def run(name: str, *arguments: object) -> str:
    """Run an example, and return what it says."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def found(pattern: str, text: str) -> list[float]:
    """Return the numbers of the one match."""
    (match,) = re.finditer(pattern, text)
    return [float(number.replace(",", "")) for number in match.groups()]


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


def test_tokens_are_written_once_and_train_a_model(tmp_path: Path) -> None:
    said = run("01_tokens.py", "--out", tmp_path, "--steps", 40)
    before, after = found(r"held out: ([\d.]+) bits per byte before, ([\d.]+) after", said)
    assert before > 7.9
    assert after < 4.2
    files = sorted(path for path in (tmp_path / "tokens").rglob("*") if path.is_file())
    run("01_tokens.py", "--out", tmp_path, "--steps", 2, "--context", 128, "--workers", 0)
    assert sorted(path for path in (tmp_path / "tokens").rglob("*") if path.is_file()) == files


def test_images_are_augmented_alike_by_any_number_of_workers(tmp_path: Path) -> None:
    said = run("02_images.py", "--out", tmp_path, "--photographs", 100)
    (accuracy,) = found(r"held out: ([\d.]+)", said)
    assert accuracy > 0.6
    assert "by 0 and by 2 workers: equal, bit for bit" in said
    sheet = Path(said.split("contact sheet: ")[1].strip())
    assert sheet.read_text(encoding="utf-8").count("data:image/") >= 8


def test_records_are_found_by_number_key_column_and_version(tmp_path: Path) -> None:
    said = run("03_records.py", "--out", tmp_path)
    assert "same: True" in said
    private, rows = found(r"([\d,]+) of ([\d,]+) functions are private", said)
    assert 0 < private < rows
    newer, more = found(r"version 2: ([\d,]+) rows, of which (\d+) are of this file: arguments", said)
    assert (newer, more) == (rows + 4, 4)
    assert "place/line  int" in said


def test_a_mixture_follows_its_weights_and_resumes_after_they_changed(tmp_path: Path) -> None:
    said = run("04_mixture.py", "--out", tmp_path)
    first, second, batches = found(r"code: ([\d.]+)% of the first half, ([\d.]+)% of the second, of (\d+) batches", said)
    assert (first, second, batches) == (80.0, 25.0, 200)
    size, rest = found(r"resumed from (\d+) bytes: (\d+) batches, the same, bit for bit", said)
    assert size < 1024
    assert rest == 50


def test_two_ranks_write_to_s3_and_read_every_sample_once(tmp_path: Path) -> None:
    said = run("05_s3_two_ranks.py", "--out", tmp_path / "s3", "--samples", 256)
    assert "0 samples missing, 0 seen twice" in said
    assert said.count("version 1 has 256 samples, of which 128 came here") == 2
    whole, cached = found(r"dataset ([\d,]+) bytes, cache of both ranks ([\d,]+) bytes", said)
    assert cached == pytest.approx(whole, rel=0.05)


def test_embeddings_killed_and_resumed_are_those_of_an_unbroken_job(tmp_path: Path) -> None:
    said = run("06_embeddings.py", "--out", tmp_path / "killed")
    before, shown = found(r"killed with SIGKILL after (\d+) documents; files in the output: (\d+)", said)
    documents, files, again = found(r"(\d+) documents, (\d+) files, .* done twice: (\d+)", said)
    assert shown == 0
    assert files == documents
    assert again < before / 2
    run("06_embeddings.py", "--out", tmp_path / "whole", "--no-kill")
    killed, whole = embeddings(tmp_path / "killed"), embeddings(tmp_path / "whole")
    assert killed == whole


def embeddings(out: Path) -> dict[str, bytes]:
    """Return the files of a job by their names."""
    return {path.name: path.read_bytes() for path in (out / "embeddings").glob("*.npy")}
