"""`leyden ckpt` on real files: what it prints, its exit status, and that no mistake shows a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leyden.cli.main import main
from leyden.core.optional import installed

GOLDEN = Path(__file__).parents[2] / "golden" / "lightning_2_6"
LEYDEN = shutil.which("leyden", path=str(Path(sys.executable).parent)) or "leyden"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    torch.save({"model": net.state_dict(), "step": 3}, tmp_path / "source.ckpt")
    return tmp_path / "source.ckpt"


def test_the_installed_command_converts_and_inspects_a_real_lightning_file(tmp_path: Path) -> None:
    target = tmp_path / "model.ckpt"

    def run(*arguments: str) -> Any:
        command = [LEYDEN, "ckpt", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})

    refused = run("convert", str(GOLDEN / "trainer.ckpt"), str(target))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert "research_code.augment.Mixup" in refused.stderr
    done = run("convert", str(GOLDEN / "trainer.ckpt"), str(target), "--drop-opaque")
    assert (done.returncode, done.stdout) == (0, f"wrote {target}\n")
    assert done.stderr.startswith("warning: left out of")
    assert torch.load(target, weights_only=True)["hyper_parameters"]["schedule"] == {"lr": 1e-2, "inner": {"steps": [1, 2]}}


def test_inspect_prints_what_a_person_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ckpt", "inspect", str(GOLDEN / "trainer.ckpt"), "--verify"]) == 0
    out, err = capsys.readouterr()
    assert "lightning-trainer, 11.8 kB in 1 file(s)" in out
    assert "lightning 2.6.6, step 4" in out
    assert "state_dict                 module  69 numbers in 9 tensor(s), 280 bytes, float32 int64" in out
    assert "not imported: research_code.augment.Mixup at ['hyper_parameters']['augment']" in out
    assert "verified: checksums agree" in out
    assert err == ""


def test_inspect_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ckpt", "inspect", str(GOLDEN / "dcp"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "dcp"
    assert report["entries"]["model"]["parameters"] == 66


def test_a_sharded_folder_goes_through_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "fsdp"
    shutil.copytree(GOLDEN / "fsdp", folder)
    assert main(["ckpt", "consolidate", str(folder)]) == 0
    assert main(["ckpt", "reshard", str(folder), str(tmp_path / "cut"), "--ranks", "2", "--json"]) == 0
    assert main(["ckpt", "consolidate", str(tmp_path / "cut"), "--output", str(tmp_path / "one.ckpt")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [f"wrote {tmp_path / 'fsdp.consolidated'}", json.dumps({"path": str(tmp_path / "cut")}), f"wrote {tmp_path / 'one.ckpt'}"]
    first = torch.load(tmp_path / "fsdp.consolidated", weights_only=True)
    second = torch.load(tmp_path / "one.ckpt", weights_only=True)
    for name, tensor in first["model"].items():
        assert torch.equal(second["model"][name], tensor)
    assert second["optimizer"]["param_groups"] == first["optimizer"]["param_groups"]


def test_the_older_spelling_consolidates_too(tmp_path: Path) -> None:
    assert main(["fabric", "consolidate", str(GOLDEN / "dcp"), "--output_file", str(tmp_path / "one.ckpt")]) == 0
    assert sorted(torch.load(tmp_path / "one.ckpt", weights_only=True)) == ["__leyden__", "model", "optimizer"]


@pytest.mark.parametrize("to", ["directory", "hf", "dcp"])
def test_convert_writes_each_format(source: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.with_name("target")
    assert main(["ckpt", "convert", str(source), str(target), "--to", to]) == 0
    assert target.is_dir()
    assert main(["ckpt", "inspect", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["entries"]["model"]["parameters"] == 66


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["inspect", "{tmp}/absent"], 2, "there is no checkpoint at"),
        (["inspect", "{tmp}/noise"], 1, "is no checkpoint"),
        (["convert", "{tmp}/source.ckpt", "{tmp}/noise"], 2, "exists, and nothing is overwritten"),
        (["consolidate", "{tmp}/source.ckpt"], 2, "one file already"),
        (["reshard", "{tmp}/source.ckpt", "{tmp}/x", "--ranks", "0"], 2, "at least 1"),
        (["convert", "{tmp}/source.ckpt", "/proc/nowhere/x"], 1, "cannot write"),
    ],
)
def test_mistakes_are_one_line_and_a_status(
    source: Path, arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.with_name("noise").write_bytes(b"noise" * 10)
    assert main(["ckpt", *(argument.format(tmp=source.parent) for argument in arguments)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "arguments", [[], ["inspect"], ["convert", "a", "b", "--to", "zip"], ["reshard", "a", "b"], ["reshard", "a", "b", "--ranks", "two"]]
)
def test_bad_arguments_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["ckpt", *arguments])
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not installed("deepspeed"), reason="deepspeed is not installed: leyden doctor shows the command")
@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_a_deepspeed_folder_is_merged_by_its_own_script(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = GOLDEN.parent / "deepspeed_0_19" / name
    expected = json.loads((folder.parent / "expected.json").read_text())[name]
    assert main(["ckpt", "inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"] == ["checkpoint"]
    assert main(["ckpt", "convert", str(folder), str(tmp_path / "model.ckpt")]) == 0
    assert "DeepSpeed's reader runs the pickles" in capsys.readouterr().err
    found = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert {key: value for key, value in found.items() if key not in ("model", "__leyden__")} == {"step": 3, "hparams": {"lr": 0.1}}
    assert {key: list(tensor.shape) for key, tensor in found["model"].items()} == {key: shape for key, (shape, _) in expected.items()}
    for key, tensor in found["model"].items():
        assert float(tensor.double().sum()) == pytest.approx(expected[key][1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not installed("deepspeed"), reason="deepspeed is not installed: leyden doctor shows the command")
def test_a_damaged_deepspeed_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "zero"
    shutil.copytree(GOLDEN.parent / "deepspeed_0_19" / "stage2", folder)
    (folder / "checkpoint" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    assert main(["ckpt", "convert", str(folder), str(tmp_path / "x")]) == 1
    assert "error: DeepSpeed could not merge" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
