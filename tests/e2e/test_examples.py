"""The examples run, and do what they say."""

import csv
import difflib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "fabric"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def command(name, *arguments):
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(name, *arguments):
    done = subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=240, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def column(file, name):
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row[name]]


def test_fabric_is_five_changed_lines():
    raw = (EXAMPLES / "01_digits_raw.py").read_text().splitlines()
    ours = (EXAMPLES / "00_five_lines.py").read_text().splitlines()
    changes = [line for line in difflib.ndiff(raw, ours) if line[0] in "+-" and line[2:].strip()]
    added = [
        line[2:].strip() for line in changes if line[0] == "+" and "fabric." in line and "import" not in line and "examples" not in line
    ]
    added += [line[2:].strip() for line in changes if line[2:].strip().startswith("fabric = Fabric(")]
    removed = [
        line[2:].strip()
        for line in changes
        if line[0] == "-" and "raw" not in line and '"""' not in line and not line[2:].startswith("The only")
    ]
    assert sorted(added) == [
        'fabric = Fabric(accelerator="cpu")',
        "fabric.backward(loss)",
        "fabric.launch()",
        "loader = fabric.setup_dataloaders(loader)",
        "model, optimizer = fabric.setup(model, optimizer)",
    ]
    assert removed == ["loss.backward()"]


def test_five_lines_train_bit_for_bit_like_the_raw_loop(tmp_path):
    run("01_digits_raw.py", tmp_path / "raw.json")
    run("00_five_lines.py", tmp_path / "five.json")
    raw, five = (json.loads((tmp_path / name).read_text()) for name in ("raw.json", "five.json"))
    assert raw == five
    assert raw["accuracy"] >= 0.88


@pytest.mark.long
def test_killed_and_resumed_on_two_ranks_ends_bit_for_bit_where_the_unbroken_run_ends(tmp_path):
    two = ("--out", tmp_path, "--devices", 2, "--strategy", "ddp")
    run("01_digits.py", *two, "--name", "unbroken")
    with subprocess.Popen(
        command("01_digits.py", *two, "--name", "killed"), stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        for line in process.stdout:
            if (step := re.search(r"step +(\d+)/", line)) and int(step[1]) >= 110:
                process.send_signal(signal.SIGKILL)
                break
    assert "resumed at step" in run("01_digits.py", *two, "--name", "killed", "--resume")
    assert column(tmp_path / "killed" / "metrics.csv", "loss") == column(tmp_path / "unbroken" / "metrics.csv", "loss")


def test_the_byte_model_learns_the_same_sharded_over_two_and_is_read_by_plain_torch(tmp_path):
    run("02_bytes.py", "--out", tmp_path, "--name", "one", "--steps", 60)
    said = run("02_bytes.py", "--out", tmp_path, "--name", "two", "--steps", 60, "--devices", 2, "--strategy", "fsdp")
    one, two = (column(tmp_path / name / "metrics.csv", "bits_per_byte") for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)
    assert one[-1] < one[0] - 3
    found = re.search(r"held out: ([\d.]+) bits per byte; single bytes: ([\d.]+)", said)
    assert float(found[1]) < float(found[2])
    state = torch.load(tmp_path / "two" / "model.ckpt", weights_only=True)
    assert state["step"] == 60


def test_the_losses_of_the_digits_are_the_golden_ones_to_six_digits(tmp_path):
    golden = json.loads((ROOT / "tests" / "golden" / "digits" / "losses_float64.json").read_text())
    run("01_digits.py", "--out", tmp_path, "--name", "double", "--precision", "64-true")
    assert column(tmp_path / "double" / "metrics.csv", "loss") == pytest.approx(golden["losses"], rel=1e-6)
    assert column(tmp_path / "double" / "metrics.csv", "accuracy") == pytest.approx([golden["accuracy"]])
