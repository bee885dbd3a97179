"""MPIEnvironment under a real `mpiexec`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.core.optional import installed

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
SCRIPT = """
import json, os, sys
import torch, torch.distributed as dist
from leyden.fabric.arguments import RawArguments, resolve

plan = resolve(RawArguments(accelerator="cpu"))
env = plan.environment
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{env.main_port}", rank=env.global_rank(), world_size=env.world_size())
total = torch.tensor([env.global_rank() + 1.0])
dist.all_reduce(total)
ranks = [env.global_rank(), env.local_rank(), env.node_rank(), plan.num_ranks]
seen = [type(env).__name__, *ranks, type(plan.strategy).__name__, total.item()]
with open(os.path.join(sys.argv[1], f"{env.global_rank()}.json"), "w") as file:
    json.dump(seen, file)
dist.destroy_process_group()
"""


@pytest.mark.skipif(MPIEXEC is None or not installed("mpi4py"), reason="needs mpiexec and mpi4py: pip install mpich 'leyden[mpi]'")
def test_two_ranks_of_mpiexec_find_each_other(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [str(MPIEXEC), "-n", "2", sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert ranks == [["MPIEnvironment", rank, rank, 0, 2, "DDPStrategy", 3.0] for rank in (0, 1)]
