"""The end of a process waits for its asynchronous save, and says if it failed."""

from pathlib import Path

from leyden.fabric.checkpoint import saver
from tests.support.processes import Finished, running_script

SCRIPT = """
import sys
import torch
from leyden.fabric.checkpoint import saver
from leyden.fabric.strategies.single import SingleDeviceStrategy

saver.write(sys.argv[1], {"model": torch.nn.Linear(500, 500), "step": 5}, strategy=SingleDeviceStrategy("cpu"), blocking=False)
print("the script is over", flush=True)
"""


def finished_script(path: Path, **env: str) -> Finished:
    with running_script(SCRIPT, args=[str(path)], env=env) as script:
        return script.wait()


def test_the_process_waits_for_its_save(tmp_path: Path) -> None:
    finished = finished_script(tmp_path / "saved")
    assert finished.code == 0, finished.stderr
    assert saver.read(tmp_path / "saved")["step"] == 5


def test_a_failed_save_ends_the_process_with_status_1(tmp_path: Path) -> None:
    finished = finished_script(tmp_path / "saved", LEYDEN_FAILPOINT="checkpoint.in_file=enospc")
    assert finished.code == 1
    assert "the script is over" in finished.stdout
    assert "The last checkpoint of this process could not be saved" in finished.stderr
    assert "No space left on device" in finished.stderr
    assert list(tmp_path.iterdir()) == []
