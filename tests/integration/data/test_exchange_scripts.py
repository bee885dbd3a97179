"""A script written for LitData runs after changing the import, and prints the same; LitData's data are read bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leyden.data import StreamingDataset
from tests.support.peers import peer_python

SCRIPT = Path(__file__).parents[2] / "support/litdata_script.txt"
NAMES = frozenset(
    {"length", "all", "batches", "types", "shuffled", "learns", "windows", "split", "subsample", "mixed", "zipped", "resumed", "mapped"}
    | {"walked", "appended", "refused"}
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the environment may have to be made first


def printed(python: str, library: str, folder: Path) -> dict[str, str]:
    folder.mkdir()
    script = folder / "prepare_and_train.py"
    script.write_text(SCRIPT.read_text())
    environment = {**os.environ, "LIBRARY": library}
    done = subprocess.run([python, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return {name: rest for name, _, rest in lines if name in NAMES}


@pytest.mark.long
def test_the_script_prints_the_same(tmp_path: Path) -> None:
    theirs = printed(peer_python("litdata"), "litdata", tmp_path / "litdata")
    ours = printed(sys.executable, "leyden.data", tmp_path / "leyden")
    assert ours == theirs
    assert len(ours) == 16
    read = StreamingDataset(str(tmp_path / "litdata/data"))
    assert sorted(sample["index"] for sample in read[:]) == list(range(60))
    assert all(np.array_equal(sample["image"], _image(sample["index"])) for sample in read[:])


def _image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (3, 8, 8), dtype=np.uint8)
