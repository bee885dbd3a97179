"""Engines: a job on Ray's actors, and as tasks of a Slurm array, gives the bytes of one process; killed actors are replaced."""

import functools
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, RemoteError
from leyden.data import RayEngine, StreamingDataset, map, optimize
from leyden.data.errors import UnitFailedError
from leyden.data.write.engines.ranks import drivers_of

ROWS = 300
ray: Any = pytest.importorskip("ray")


def sample(number: int, mark: str | None = None) -> dict[str, Any]:
    if mark is not None and number == 137 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"id": number, "text": f"{number:040d}"}


def refuses(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def kills(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def writes(number: int, output_dir: str) -> None:
    Path(output_dir, f"{number}.txt").write_text(str(number))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = signal.getsignal(signal.SIGTERM)  # Ray changes it, and other tests of this process look at it
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}})
        signal.signal(signal.SIGTERM, before)
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.ldc")}


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_actors_give_the_bytes_of_one_process_also_when_one_is_killed(cluster: None, tmp_path: Path) -> None:
    optimize(functools.partial(sample), list(range(ROWS)), str(tmp_path / "one"), num_workers=0)
    function = functools.partial(sample, mark=str(tmp_path / "killed"))
    report = optimize(function, list(range(ROWS)), str(tmp_path / "ray"), engine=RayEngine(2))
    assert report.num_rows == ROWS
    assert (tmp_path / "killed").exists()
    rows = StreamingDataset(str(tmp_path / "ray"))[:]
    assert rows == StreamingDataset(str(tmp_path / "one"))[:]
    assert optimize(function, list(range(ROWS)), str(tmp_path / "ray"), engine="local").version == report.version, "it is the same job"


@pytest.mark.long
def test_ray_and_local_are_byte_identical(cluster: None, tmp_path: Path) -> None:
    for engine in ("local", RayEngine(2), "ray"):
        optimize(sample, list(range(ROWS)), str(tmp_path / str(engine)), engine=engine, num_workers=1)
    first, *others = (contents(tmp_path / str(engine)) for engine in ("local", RayEngine(2), "ray"))
    assert first
    assert all(other == first for other in others)


def test_what_an_input_raises_is_raised(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError, match="seven"):
        optimize(refuses, list(range(20)), str(tmp_path / "a"), engine=RayEngine(1))
    report = optimize(refuses, list(range(20)), str(tmp_path / "b"), engine=RayEngine(1), on_error="skip", verbose=False)
    assert (report.num_rows, report.skipped) == (19, 1)


@pytest.mark.long
def test_actors_that_keep_dying_are_an_error(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="actors of Ray died"):
        optimize(kills, list(range(20)), str(tmp_path / "a"), engine=RayEngine(1))


def test_map_runs_on_ray(cluster: None, tmp_path: Path) -> None:
    assert map(writes, list(range(30)), str(tmp_path / "files"), engine=RayEngine(2)).num_chunks == 30
    assert (tmp_path / "files/29.txt").read_text() == "29"


@pytest.mark.parametrize("engine", ["dask", 3, None])
def test_other_engines_are_refused(engine: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RayEngine"):
        optimize(str, [1], str(tmp_path / "a"), engine=engine)
    with pytest.raises(ConfigError, match="num_actors=0"):
        RayEngine(0)


def test_drivers_are_counted_by_the_launchers_variables() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}
    step = {"SLURM_PROCID": "0", "SLURM_NTASKS": "3", "SLURM_STEP_ID": "0"}
    assert [drivers_of("auto", each) for each in ({}, array, step, {**array, **step}, {"RANK": "0", "WORLD_SIZE": "2"})] == [1, 4, 3, 12, 2]
    assert drivers_of("local", array) == drivers_of(RayEngine(2), array) == 1


TASK = """
import sys
from leyden.data import optimize
from tests.integration.data.test_job_engines import sample

if __name__ == "__main__":
    print(optimize(sample, list(range(300)), sys.argv[1], num_workers=1, fsync=False).num_rows)
"""


def test_tasks_of_a_slurm_array_share_the_units(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    tasks = []
    for number in range(2):
        environment = {**os.environ, "PYTHONPATH": ".", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
        command = [sys.executable, str(tmp_path / "task.py"), str(tmp_path / "array")]
        tasks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    assert [task.communicate(timeout=60)[0].strip() for task in tasks] == ["300", "300"]
    optimize(sample, list(range(ROWS)), str(tmp_path / "one"), num_workers=0)
    assert contents(tmp_path / "array") == contents(tmp_path / "one")
