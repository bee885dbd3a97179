"""The same fit, started in every way: by itself, forked, spawned, by torchrun; what comes home is what one would have found there."""

import json
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from tests.support.launched_fit import fitted
from tests.support.lines import Line, points, quiet_trainer
from tests.support.processes import running_script
from tests.support.ranks import run_ranks
from tests.support.training_script import started_by

SCRIPT = """
from tests.support import launched_fit

if __name__ == "__main__":
    launched_fit.main()
"""


@pytest.fixture(scope="module")
def in_place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the fit finds in ranks that exist already."""
    return run_ranks(fitted, 2, args=(tmp_path_factory.mktemp("ranks"), "ddp"), timeout=100)[0]


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("ddp_fork", marks=pytest.mark.long), "ddp_spawn"])
def test_what_happened_in_started_processes_comes_home(tmp_path: Path, strategy: str, in_place: dict[str, Any]) -> None:
    with running_script(SCRIPT, args=[str(tmp_path), strategy]) as script:
        finished = script.wait()
        script.wait_until_gone()
    assert finished.code == 0, finished.stderr
    found = json.loads((tmp_path / f"found-{strategy}.json").read_text())
    expected = json.loads(json.dumps(in_place))
    if strategy != "ddp":
        assert found.pop("predicted") == []  # predictions stay where they were made
        expected.pop("predicted")
    assert found == expected


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
LEYDEN = ["leyden.cli.main", "fabric", "run", "--devices=2", "--accelerator=cpu", "train.py"]


@pytest.mark.parametrize("launcher", [TORCHRUN, LEYDEN], ids=["torchrun", "leyden"])
def test_processes_that_others_started_are_joined(tmp_path: Path, launcher: list[str], in_place: dict[str, Any]) -> None:
    with running_script(started_by(*launcher, source=SCRIPT), args=[str(tmp_path), "ddp"]) as script:
        finished = script.wait()
    assert finished.code == 0, finished.stderr
    assert json.loads((tmp_path / "found-ddp.json").read_text()) == json.loads(json.dumps(in_place))


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_predictions_are_not_sent_between_processes(tmp_path: Path, strategy: str) -> None:
    trainer = quiet_trainer(tmp_path, strategy=strategy, devices=2)
    with pytest.raises(ConfigError, match="`return_predictions` should be set to `False`"):
        trainer.predict(Line(), points(), return_predictions=True)
    with pytest.raises(ConfigError, match="stream"):
        trainer.predict(Line(), points(), stream=True)
