"""`leyden fabric run` starts real processes; its mistakes are one line and exit status 2."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.cli import fabric as command
from leyden.core.errors import ConfigError

SCRIPT = """
import json, os, sys
import torch, torch.distributed as dist
from leyden.fabric.arguments import RawArguments, resolve

plan = resolve(RawArguments())
plan.environment.set_world_size(99)  # does nothing: torchrun decides
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
seen = {
    "rank": plan.environment.global_rank(), "world": plan.environment.world_size(), "total": total.item(), "argv": sys.argv[1:],
    "strategy": type(plan.strategy).__name__, "precision": plan.precision.precision, "threads": os.environ["OMP_NUM_THREADS"],
    "variables": {name: value for name, value in os.environ.items() if name.startswith(("LT_", "LEYDEN_FABRIC"))},
}
with open(os.path.join(os.environ["RESULTS"], f"{dist.get_rank()}.json"), "w") as file:
    json.dump(seen, file)
dist.destroy_process_group()
"""


def leyden(*arguments: object, timeout: float = 110, **environ: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "leyden.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environ}, check=False)


def parse(*arguments: str) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command._split(parser.parse_args(["fabric", "run", *arguments]))


def planned(*arguments: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    return command.plan_run(*parse(*arguments), environ)


def test_two_ranks_run_the_script_as_the_command_line_says(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    options = ["--accelerator", "cpu", "--devices", "2", "--num_nodes=1", "--strategy", "ddp", "--precision", "bf16-mixed"]
    done = leyden(
        *("fabric", "run", script, *options, "config.yaml", "--epochs", "3", "--", "--devices", "7"),
        RESULTS=str(tmp_path),
        LEYDEN_FABRIC_DEVICES="5",
        OMP_NUM_THREADS="3",
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    for number, rank in enumerate(ranks):
        assert (rank["rank"], rank["world"], rank["total"]) == (number, 2, 3.0)
        assert (rank["strategy"], rank["precision"], rank["threads"]) == ("DDPStrategy", "bf16-mixed", "3")
        assert rank["argv"] == ["config.yaml", "--epochs", "3", "--devices", "7"]
        assert rank["variables"] == {
            "LT_ACCELERATOR": "cpu",
            "LT_CLI_USED": "1",
            "LT_DEVICES": "2",
            "LT_NUM_NODES": "1",
            "LT_PRECISION": "bf16-mixed",
            "LT_STRATEGY": "ddp",
        }


def test_a_script_that_contradicts_the_command_line_fails_with_both(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(
        "from leyden.fabric.arguments import RawArguments, resolve\nresolve(RawArguments(accelerator='cpu', devices=2))\n", encoding="utf-8"
    )
    done = leyden("fabric", "run", script, "--devices=1")
    assert done.returncode != 0
    assert "the code has devices=2, which conflicts with --devices=1 on the command line" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-script.py"], "error: the script 'no-such-script.py' does not exist"),
        ([__file__, "--strategy", "ddp_spawn"], "error: --strategy=ddp_spawn starts its processes itself"),
        ([__file__, "--devices", "zero"], "error: --devices=zero should be a number above 0"),
        ([__file__, "--node-rank", "2", "--num-nodes", "2"], "error: --node-rank=2, but --num-nodes=2"),
    ],
    ids=["no script", "spawn", "no number", "node rank"],
)
def test_mistakes_are_one_line_and_status_two(arguments, message):
    done = leyden("fabric", "run", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true"])
def test_strategies_that_start_their_own_ranks_are_refused(name):
    with pytest.raises(ConfigError, match="Use --strategy=ddp"):
        planned("t.py", "--strategy", name)


def test_options_stand_before_or_after_the_script_and_the_rest_goes_to_it():
    options, rest = parse("--devices", "2", "t.py", "a", "--lr", "3e-4", "--num_nodes", "2", "--", "--strategy", "x", "--", "y")
    assert (options.script, options.devices, options.num_nodes, options.strategy) == ("t.py", "2", 2, None)
    assert rest == ["a", "--lr", "3e-4", "--strategy", "x", "--", "y"]


def test_the_defaults_are_the_documented_ones():
    options, rest = parse("t.py")
    assert rest == []
    assert (options.devices, options.num_nodes, options.node_rank) == ("1", 1, 0)
    assert (options.main_address, options.main_port) == ("127.0.0.1", None)
    assert (options.accelerator, options.strategy, options.precision) == (None, None, None)


def test_one_node_takes_a_free_port_unless_one_is_given():
    line, variables = planned("t.py", "--devices", "2")
    assert line[1:] == ["-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--standalone", "t.py"]
    assert {name: value for name, value in variables.items() if name.startswith("LT_")} == {
        "LT_CLI_USED": "1",
        "LT_DEVICES": "2",
        "LT_NUM_NODES": "1",
    }
    line, _ = planned("t.py", "--main-port", "2000")
    assert line[3:8] == ["--nnodes=1", "--nproc-per-node=1", "--node-rank=0", "--master-addr=127.0.0.1", "--master-port=2000"]


def test_several_nodes_meet_at_the_main_address():
    line, variables = planned("t.py", "--num-nodes=2", "--node-rank=1", "--main-address=host-a", "--devices=4")
    assert line[3:8] == ["--nnodes=2", "--nproc-per-node=4", "--node-rank=1", "--master-addr=host-a", "--master-port=29400"]
    assert variables["LT_NUM_NODES"] == "2"


@pytest.mark.parametrize(("devices", "count"), [("3", 3), ("0,2", 2), ("1,", 1), ("auto", 1)])
def test_a_node_has_one_process_for_each_device(devices, count):
    line, variables = planned("t.py", "--accelerator=cpu", "--devices", devices)
    assert f"--nproc-per-node={count}" in line
    assert variables["LT_DEVICES"] == devices


@pytest.mark.parametrize("devices", ["0", "-2", "x", "1,x", ""])
def test_devices_that_are_no_number_are_refused(devices):
    with pytest.raises(ConfigError, match="--devices="):
        planned("t.py", f"--devices={devices}")


def test_our_own_variables_do_not_win_over_the_command_line():
    _, variables = planned("t.py", "--strategy=ddp", LEYDEN_FABRIC_STRATEGY="fsdp", LEYDEN_FABRIC_PRECISION="16-true", PATH="/bin")
    assert "LEYDEN_FABRIC_STRATEGY" not in variables
    assert variables["LEYDEN_FABRIC_PRECISION"] == "16-true"  # not on the command line, so it stays
    assert variables["PATH"] == "/bin"


def test_threads_are_shared_out_unless_the_user_has_said():
    _, variables = planned("t.py", "--devices=2")
    assert int(variables["OMP_NUM_THREADS"]) == max(1, command._num_cores() // 2)
    _, variables = planned("t.py", OMP_NUM_THREADS="9")
    assert variables["OMP_NUM_THREADS"] == "9"
