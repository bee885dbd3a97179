"""The trainer's examples run, and do what they say.

Those of one process run one after the other in one fork that has imported torch; those of several are real scripts.
"""

import contextlib
import csv
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import run_ranks

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "trainer"
RUNS = {
    "01_digits.py": ["--epochs", "6"],
    "02_autoencoder.py": ["--epochs", "5"],
    "03_gan.py": ["--epochs", "15"],
    "04_language_model.py": ["--steps", "60"],
    "05_finetuning.py": ["--epochs", "6"],
    "06_several_loaders.py": ["--epochs", "5"],
    "08_ema.py": ["--epochs", "4"],
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run_examples(out: str) -> dict[str, Any]:
    """Run the examples of one process; return what each one's `main` returns."""
    results = {}
    for name, arguments in RUNS.items():
        example = runpy.run_path(str(EXAMPLES / name))
        results[name] = example["main"](example["arguments"]().parse_args([*arguments, "--out", out]))
    return results


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return run_ranks(run_examples, 1, args=(str(out),), timeout=200, join=False)[0]


def test_every_example_runs_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*RUNS, "07_two_ranks_resumed.py"}


def test_the_classifier_learns_and_keeps_its_best_and_its_last_state(results: dict[str, Any], out: Path) -> None:
    assert results["01_digits.py"]["test/accuracy"] > 0.8
    kept = {path.name for path in (out / "digits" / "version_0" / "checkpoints").iterdir()}
    assert "last.ckpt" in kept
    assert len(kept) == 2
    assert min(column(out / "digits" / "version_0" / "metrics.csv", "train/loss")) < 0.7


def test_the_autoencoder_beats_the_mean_image_and_draws(results: dict[str, Any], out: Path) -> None:
    assert results["02_autoencoder.py"] < 0.05
    pictures = sorted((out / "autoencoder" / "pictures").iterdir())
    assert [picture.name for picture in pictures] == [f"epoch-{epoch:02}.pgm" for epoch in range(5)]
    assert all(picture.stat().st_size == 64 * 16 + len(b"P5 64 16 255\n") for picture in pictures)


def test_the_generator_comes_closer_to_the_ring(results: dict[str, Any]) -> None:
    before, after = results["03_gan.py"]
    assert after < before / 3


def test_the_language_model_uses_its_context(results: dict[str, Any]) -> None:
    bits, without_context = results["04_language_model.py"]
    assert bits < without_context


def test_the_backbone_joins_half_way(results: dict[str, Any]) -> None:
    accuracy, counts = results["05_finetuning.py"]
    assert accuracy > 0.7
    assert counts[0] == counts[2] < counts[3] == counts[5]


def test_loaders_are_reported_apart(results: dict[str, Any]) -> None:
    clean, noisy = results["06_several_loaders.py"]
    assert set(clean) == {"val/clean"}
    assert set(noisy) == {"val/noisy"}
    assert clean["val/clean"] > noisy["val/noisy"] > 0.5


def test_the_average_is_better_than_the_last_weights(results: dict[str, Any]) -> None:
    plain, average = results["08_ema.py"]
    assert average < plain


@pytest.mark.long
def test_two_ranks_killed_and_resumed_end_bit_for_bit_where_the_unbroken_run_ends(out: Path) -> None:
    said = []
    with script("--out", out, "--name", "unbroken") as unbroken:
        said.append(unbroken.communicate(timeout=120)[0])
    with script("--out", out, "--name", "killed") as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if "Epoch 3" in line:
                killed.send_signal(signal.SIGKILL)
                break
    assert killed.returncode == -signal.SIGKILL
    with script("--out", out, "--name", "killed", "--resume") as resumed:
        said.append(resumed.communicate(timeout=120)[0])
    last = [re.findall(r"2 ranks, 78 steps: accuracy ([\d.]+)", text) for text in said]
    assert last[0] == last[1] != [], said
    for name in ("loss_step", "loss_epoch", "accuracy"):
        whole, mended = (column(out / run / "metrics.csv", name) for run in ("unbroken", "killed"))
        assert mended == whole, name


@contextlib.contextmanager
def script(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the example of two ranks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(EXAMPLES / "07_two_ranks_resumed.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        yield process


def column(file: Path, name: str) -> list[float]:
    """Return a column of a metrics file, rows without it left out."""
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row.get(name)]
