"""Write the golden ZeRO folders that the merge is tested against: stage 2 and stage 3, two processes, without a GPU.

    python tests/golden/deepspeed_0_19/make.py

Needs DeepSpeed, which compiles a part of itself the first time (minutes). The scripts that DeepSpeed copies into each
folder are left out: nothing of a checkpoint is ever run. `expected.json` holds shapes and sums that a reader must find.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
OUT = Path(tempfile.gettempdir(), "deepspeed_0_19")
STAGES = (2, 3)


def run(stage: int) -> None:
    import deepspeed  # in the ranks only

    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    config = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(model=net, optimizer=torch.optim.AdamW(net.parameters(), lr=0.1), config=config)
    engine.backward(engine(torch.ones(2, 5)).sum())
    engine.step()
    engine.save_checkpoint(str(OUT / f"stage{stage}"), tag="checkpoint", client_state={"step": 3, "hparams": {"lr": 0.1}})
    with deepspeed.zero.GatheredParameters(list(net.parameters()), enabled=stage == 3):
        sums = {name: [list(tensor.shape), float(tensor.double().sum())] for name, tensor in net.named_parameters()}
    if torch.distributed.get_rank() == 0:
        (OUT / f"stage{stage}.json").write_text(json.dumps(sums))


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    environ = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    expected = {}
    for stage in STAGES:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        subprocess.run([*launcher, __file__, str(stage)], check=True, env=environ)
        shutil.copytree(OUT / f"stage{stage}", HERE / f"stage{stage}", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py"))
        expected[f"stage{stage}"] = json.loads((OUT / f"stage{stage}.json").read_text())
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.rmtree(OUT)


if __name__ == "__main__":
    run(int(sys.argv[1])) if len(sys.argv) > 1 else main()
