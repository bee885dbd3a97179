"""Jobs whose inputs and outputs lie in an S3 server: fetched ahead, uploaded, resumed after kills."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden import data as ld
from leyden.core.errors import ConflictError
from leyden.core.storage import open_storage
from tests.support.s3_server import S3Server, s3_server

_SCRIPT = """
import sys
from pathlib import Path
from leyden import data as ld

def sample(path):
    return {"name": Path(path).name, "bytes": Path(path).read_bytes()}

def copy(path, output_dir):
    Path(output_dir, "deep").mkdir()
    Path(output_dir, "deep", Path(path).name).write_bytes(Path(path).read_bytes())

if __name__ == "__main__":
    kind, source, output, workers = sys.argv[1:]
    inputs = [f"{source}/{number}.bin" for number in range(70)]
    if kind == "map":
        print(ld.map(copy, inputs, output, num_workers=int(workers)).num_chunks)
    else:
        print(ld.optimize(sample, inputs, output, num_workers=int(workers), layout=kind, verbose=False).num_rows)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        storage = open_storage(running.make_bucket("raw"), running.options)
        for number in range(70):
            storage.write(f"{number}.bin", bytes([number]) * 1000)
        running.make_bucket("out")
        yield running


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(_SCRIPT, encoding="utf-8")
    return path


def run(server: S3Server, script: Path, kind: str, output: str, workers: int, **variables: str) -> tuple[int, str]:
    command = [sys.executable, str(script), kind, "s3://raw", output, str(workers)]
    environment = {**os.environ, **server.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=90, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


def keys(server: S3Server, url: str) -> list[str]:
    return sorted(entry.key for entry in open_storage(url, server.options).list() if not entry.key.startswith("_leyden/"))


@pytest.mark.parametrize("layout", ["leyden", pytest.param("litdata", marks=pytest.mark.long)])
def test_optimize_from_a_bucket_into_a_bucket(server: S3Server, script: Path, layout: str) -> None:
    url = f"s3://out/{layout}"
    assert run(server, script, layout, url, 0, LEYDEN_FAILPOINT="data.done.after:30=kill")[0] == -signal.SIGKILL
    assert run(server, script, layout, url, 2) == (0, "70")
    rows = list(ld.StreamingDataset(url, storage_options=server.options, max_cache_size=0))
    assert [(row["name"], row["bytes"]) for row in rows] == [(f"{number}.bin", bytes([number]) * 1000) for number in range(70)]
    assert len(keys(server, url)) == 2, "one chunk and the index; what was packed is gone"


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("data.unit.written:3", marks=pytest.mark.long),
        pytest.param("data.done.after:9", marks=pytest.mark.long),
        "data.map.move:50",
    ],
)
def test_map_into_a_bucket_goes_on(server: S3Server, script: Path, step: str) -> None:
    url = f"s3://out/map-{step.partition(':')[0]}"
    assert run(server, script, "map", url, 0, LEYDEN_FAILPOINT=f"{step}=kill")[0] == -signal.SIGKILL
    assert run(server, script, "map", url, 2) == (0, "70")
    assert keys(server, url) == sorted(f"deep/{number}.bin" for number in range(70))
    storage = open_storage(url, server.options)
    assert storage.read("deep/7.bin") == bytes([7]) * 1000
    assert not list(storage.list("_leyden/tmp"))
    with pytest.raises(ConflictError, match="is not empty"):
        ld.map(print, [1], url, num_workers=0, error_when_not_empty=True, storage_options=server.options)
