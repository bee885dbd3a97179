"""`kill -9` at each point of a save: what is on disk is whole, and the run goes on from `last`."""

from pathlib import Path

import pytest

from leyden.fabric.checkpoint import read
from leyden.trainer.callbacks import ModelCheckpoint
from tests.support.processes import running_script
from tests.support.scripted_fit import fit, names_in, step_of

SCRIPT = """
import sys
from pathlib import Path
from leyden.trainer.callbacks import ModelCheckpoint
from tests.support.scripted_fit import fit

if __name__ == "__main__":
    root, save_last = Path(sys.argv[1]), sys.argv[2] if sys.argv[2] == "link" else True
    fit(root, ModelCheckpoint(root / "c", save_last=save_last))
"""


@pytest.mark.parametrize(
    ("failpoint", "step"),
    [
        pytest.param("checkpoint.before_write:2", 4, marks=pytest.mark.long),  # of the second epoch's file
        pytest.param("checkpoint.after_write:2", 4, marks=pytest.mark.long),
        ("publish.renamed:3", 4),  # it is there, and `last` is still the old one
        pytest.param("publish.written:4", 4, marks=pytest.mark.long),  # `last` is about to move
        ("checkpoint.before_remove:1", 8),  # `last` has moved, the old file is still there
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_killed_run_goes_on_from_last(tmp_path: Path, failpoint: str, step: int) -> None:
    with running_script(SCRIPT, args=[str(tmp_path), "copy"], env={"LEYDEN_FAILPOINT": f"{failpoint}=kill"}) as script:
        assert script.wait().code == -9
    assert step_of(tmp_path / "c" / "last.ckpt") == step
    whole = [name for name in names_in(tmp_path / "c") if name.endswith(".ckpt")]
    assert {read(tmp_path / "c" / name)["global_step"] for name in whole} <= {4, 8}
    trainer = fit(tmp_path, ModelCheckpoint(tmp_path / "c", save_last=True), ckpt_path="last")
    assert trainer.global_step == 12
    assert step_of(tmp_path / "c" / "last.ckpt") == 12


def test_a_link_never_dangles(tmp_path: Path) -> None:
    with running_script(SCRIPT, args=[str(tmp_path), "link"], env={"LEYDEN_FAILPOINT": "checkpoint.before_remove:1=kill"}) as script:
        assert script.wait().code == -9
    last = tmp_path / "c" / "last.ckpt"
    assert last.is_symlink()
    assert step_of(last) == 8
