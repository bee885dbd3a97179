"""One training script, started in every way there is: the ranks see the same batches and report the same losses."""

import functools
import json

import pytest

from tests.support.processes import running_script
from tests.support.training_script import TRAINING, started_by

# The function is what spawn and fork need; the other ways take it too.
SCRIPT = (
    TRAINING
    + """
def work(fabric, factor, *, offset=0.0):
    losses = train(fabric)
    fabric.print("printed once")
    words = fabric.broadcast(sys.argv[1:], src=fabric.world_size - 1)
    tensor = torch.ones(2) * factor + offset
    return {"losses": losses, "rank": fabric.global_rank, "world": fabric.world_size, "words": words, "tensor": tensor}

if __name__ == "__main__":
    cli = "LT_CLI_USED" in os.environ
    fabric = Fabric() if cli else Fabric(accelerator="cpu", devices=int(os.environ.get("DEVICES", "2")), strategy=os.environ["STRATEGY"])
    result = work(fabric, 2.0, offset=1.0) if cli else fabric.launch(work, 2.0, offset=1.0)
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0:
        result["tensor"] = result["tensor"].tolist()
        Path("result.json").write_text(json.dumps(result))
"""
)
# torchrun by itself: test_launch_scripts; `leyden fabric run` becomes it.
FACES = {
    "one process": (SCRIPT, {"STRATEGY": "auto", "DEVICES": "1"}),
    "script": (SCRIPT, {"STRATEGY": "ddp"}),
    "spawn": (SCRIPT, {"STRATEGY": "ddp_spawn"}),
    "fork": (SCRIPT, {"STRATEGY": "ddp_fork"}),
    "leyden fabric run": (
        started_by("leyden.cli.main", "fabric", "run", "train.py", "--devices=2", "--strategy=ddp", "--accelerator=cpu", source=SCRIPT),
        {},
    ),
}


@functools.cache
def run(face: str) -> dict:
    source, env = FACES[face]
    with running_script(source, args=["--lr", "3"], env=env) as script:
        finished = script.wait()
        assert finished.code == 0, finished.stderr
        script.wait_until_gone(5.0)
        assert finished.stdout.count("printed once") == 1, finished.stdout
        assert "Traceback" not in finished.stderr
        return json.loads((script.folder / "result.json").read_text())


@pytest.mark.parametrize(
    "face", ["script", "leyden fabric run", *(pytest.param(face, marks=pytest.mark.long) for face in ("fork", "spawn"))]
)
def test_every_way_of_starting_gives_the_same_losses(face):
    result, alone = run(face), run("one process")
    assert (result["rank"], result["world"]) == (0, 2)
    assert result["tensor"] == [3.0, 3.0]
    assert result["words"] == ["--lr", "3"], "the other rank has another command line"
    assert result["losses"] == run("script")["losses"], "two ranks differ from two ranks started otherwise"
    assert len(alone["losses"]) == 6
    assert result["losses"] == pytest.approx(alone["losses"], rel=1e-5)
