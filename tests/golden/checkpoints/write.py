"""Writes the golden checkpoints beside this file: `python tests/golden/checkpoints/write.py` from the root of the repository.

Run it only for a new version of the format: the old files are what shows that old checkpoints still load.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))


def golden_state() -> dict[str, Any]:
    """Return the state that every golden file holds; its numbers come from no random generator."""
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(float(parameter.numel())).reshape(parameter.shape) / 10 + number)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return {"model": model, "optimizer": optimizer, "step": 7, "hparams": {"name": "golden", "sizes": [5, 4, 3], "at": (1, 2.5, None)}}


def take_step(state: dict[str, Any]) -> None:
    """Give every parameter momentum."""
    state["model"](torch.tensor([0, 2, 4])).sum().backward()
    state["optimizer"].step()


def write_sharded(path: str) -> None:
    """Write the sharded directory; runs on two ranks."""
    from torch.distributed.fsdp import fully_shard

    from leyden.fabric.checkpoint import saver
    from tests.support.sharded_ranks import ShardedRanks

    state = golden_state()
    fully_shard(state["model"])
    state["optimizer"] = torch.optim.SGD(state["model"].parameters(), lr=0.5, momentum=0.9)
    take_step(state)
    saver.write(path, state, strategy=ShardedRanks())


def main() -> None:
    """Write all three kinds."""
    from leyden.fabric.checkpoint import saver
    from leyden.fabric.strategies.single import SingleDeviceStrategy
    from tests.support.ranks import run_ranks

    state = golden_state()
    take_step(state)
    for name, format in (("file.ckpt", "file"), ("full", "directory")):
        saver.write(HERE / name, state, strategy=SingleDeviceStrategy("cpu"), format=format)
    shutil.rmtree(HERE / "sharded", ignore_errors=True)
    run_ranks(write_sharded, 2, args=(str(HERE / "sharded"),))


if __name__ == "__main__":
    main()
