"""Jobs that write LitData's layout, in real processes; and LitData 0.2.76 itself reads what they wrote."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leyden import data as ld
from tests.support.foreign_rows import plain, same
from tests.support.peers import peer_python, run_peer

_READER = Path(__file__).parents[2] / "support/litdata_cases.py"
_SCRIPT = """
import os, sys
import numpy as np
import torch
from leyden import data as ld

def sample(number):
    return {
        "id": number, "score": number / 7, "text": f"row {number}", "vector": np.full(number % 5 + 1, number, np.float32),
        "matrix": torch.full((2, 3), number, dtype=torch.int32), "names": ["a"] * (number % 3), "json": {"n": [number, None]},
    }

def tokens(number):
    return np.arange(number, number + 40, dtype=np.int32)

if __name__ == "__main__":
    kind, output, workers = sys.argv[1:]
    options = dict(item_loader=ld.TokensLoader(), chunk_size=400) if kind == "tokens" else {"chunk_size": 17}
    options |= {"compression": "zstd", "compression_level": kind} if kind in {"batch", "sample", "chunk"} else {}
    function = tokens if kind == "tokens" else sample
    print(ld.optimize(function, range(200), output, num_workers=int(workers), verbose=False, layout="litdata", **options).num_rows)
"""
KINDS = ("rows", "batch", "sample", "chunk")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "job.py"
    path.write_text(_SCRIPT, encoding="utf-8")
    return path


def run(script: Path, kind: str, output: Path, workers: int, **variables: str) -> int:
    command = [sys.executable, str(script), kind, str(output), str(workers)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False, timeout=90, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def chunks(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*") if path.suffix in {".bin", ".ldc"}}


@pytest.fixture(scope="module")
def expected(script: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("expected") / "out"
    assert run(script, "rows", output, 0) == 0
    return chunks(output)


def test_bytes_do_not_depend_on_workers(script: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    assert len(expected) == 12
    for workers in (1, 3):
        assert run(script, "rows", tmp_path / str(workers), workers) == 0
        assert chunks(tmp_path / str(workers)) == expected


@pytest.mark.parametrize(
    "step",
    [
        "data.pack.written:2",
        pytest.param("data.done.after:65", marks=pytest.mark.long),
        pytest.param("data.commit.before", marks=pytest.mark.long),
        "data.commit.between",
    ],
)
def test_a_killed_job_goes_on_with_the_same_bytes(script: Path, tmp_path: Path, expected: dict[str, bytes], step: str) -> None:
    assert run(script, "rows", tmp_path, 0, LEYDEN_FAILPOINT=f"{step}=kill") == -signal.SIGKILL
    assert run(script, "rows", tmp_path, 0) == 0
    assert chunks(tmp_path) == expected
    assert [row["id"] for row in ld.StreamingDataset(str(tmp_path))] == list(range(200))


@pytest.mark.slow
@pytest.mark.timeout(900)  # the environment may have to be made first
def test_litdata_reads_the_same_rows(script: Path, tmp_path: Path) -> None:
    python = peer_python("litdata", ["zstd", "pyarrow", "cryptography"])
    for kind in (*KINDS, "tokens"):
        assert run(script, kind, tmp_path / kind, 2) == 0
    run_peer(python, _READER, "read", *(str(tmp_path / kind) for kind in (*KINDS, "tokens")))
    for kind in KINDS:
        ours = ld.StreamingDataset(str(tmp_path / kind))[:]
        assert len(ours) == 200
        assert same([plain(row) for row in ours], pickle.loads((tmp_path / f"{kind}.pickle").read_bytes())), kind
    windows = ld.StreamingDataset(str(tmp_path / "tokens"), item_loader=ld.TokensLoader(block_size=8))[:]
    assert len(windows) == 1000
    assert same([plain(row) for row in windows], pickle.loads((tmp_path / "tokens.pickle").read_bytes()))
