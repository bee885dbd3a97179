from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.checkpoint_names import absolute, default_directory, fill, first_free, join, lies_in, versions


@pytest.mark.parametrize(
    ("template", "metrics", "name"),
    [
        ("{epoch}-{step}", {"epoch": 2, "step": torch.tensor(12)}, "epoch=2-step=12"),
        ("{epoch:03d}", {"epoch": torch.tensor(5)}, "epoch=005"),
        ("{epoch}-{val_loss:.2f}", {"epoch": 2, "val_loss": torch.tensor(0.123456)}, "epoch=2-val_loss=0.12"),
        ("{missing:d}", {}, "missing=0"),
        ("{val/acc.top-1 x:.1f}", {"val/acc.top-1 x": 0.55}, "val/acc.top-1 x=0.6"),
        ("plain", {"plain": 1}, "plain"),
        ("{{a}}{epoch}", {"epoch": 1}, "{a}epoch=1"),
        ("{epoch!r:>3}", {"epoch": 1}, "epoch=  1"),
    ],
    ids=str,
)
def test_a_template_is_filled_with_names_and_values(template: str, metrics: dict[str, Any], name: str) -> None:
    assert fill(template, metrics) == name


def test_names_are_left_out_on_request() -> None:
    assert fill("epoch={epoch}-loss={val/loss:.2f}", {"epoch": 2, "val/loss": 0.126}, inserts_names=False) == "epoch=2-loss=0.13"


def test_the_sign_between_name_and_value_is_free() -> None:
    assert fill("{epoch}", {"epoch": 2}, equals=":") == "epoch:2"


@pytest.mark.parametrize(
    ("template", "words"),
    [("{epoch", "'{val_loss:.2f}'"), ("{}", "braces without a name"), ("{loss:d}", "'{loss:.2f}'"), ("{text:.2f}", "does not fit")],
)
def test_a_bad_template_is_refused_by_name(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"filename=.*{words}"):
        fill(template, {"loss": 0.5, "text": "a"})


def test_the_first_free_version_is_taken() -> None:
    taken = {"last", "last-v1", "last-v2"}
    assert first_free(versions("last", first=1), taken.__contains__) == "last-v3"
    assert first_free(versions("other", first=1), taken.__contains__) == "other"


def test_paths_are_absolute_and_urls_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "short").symlink_to("real")
    assert absolute("runs") == absolute("~/runs") == absolute(f"file://{tmp_path}/runs") == str(tmp_path / "runs")
    assert absolute("short") == str(tmp_path / "real")
    assert absolute("s3://bucket/runs/") == "s3://bucket/runs"


@pytest.mark.parametrize(
    ("logger", "directory"),
    [
        ({"save_dir": "logs", "name": "digits", "version": 3}, "logs/digits/version_3/checkpoints"),
        ({"save_dir": "logs", "name": "", "version": "second"}, "logs/second/checkpoints"),
        ({"save_dir": None, "name": "project", "version": "id7"}, "root/project/id7/checkpoints"),
        ({"save_dir": "s3://bucket", "name": "a", "version": 0}, "s3://bucket/a/version_0/checkpoints"),
    ],
    ids=str,
)
def test_checkpoints_lie_beside_the_first_loggers_files(logger: dict[str, Any], directory: str) -> None:
    assert default_directory([SimpleNamespace(**logger), SimpleNamespace()], "root") == directory


def test_without_a_logger_checkpoints_lie_below_the_root() -> None:
    assert default_directory([], "root") == "root/checkpoints"


def test_below_a_directory_means_its_whole_name() -> None:
    assert lies_in("s3://b/run/a.ckpt", "s3://b/run")
    assert lies_in(join("/r", "val/a.ckpt"), "/r/")
    assert not lies_in("/runs/a.ckpt", "/run")
