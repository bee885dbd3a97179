import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.loggers.saved_checkpoints import CheckpointScan


def saved(root: Path, *names: str) -> SimpleNamespace:
    for age, name in enumerate(names):
        (root / name).write_text(name)
        os.utime(root / name, (1000 + age, 1000 + age))
    paths = [str(root / name) for name in names]
    return SimpleNamespace(
        best_k_models={path: float(index) for index, path in enumerate(paths)},
        best_model_path=paths[0],
        best_model_score=0.0,
        last_model_path=paths[-1],
        current_score=9.0,
    )


def test_all_means_each_as_it_is_saved_and_once(tmp_path: Path) -> None:
    scan = CheckpointScan("all")
    callback = saved(tmp_path, "a.ckpt", "b.ckpt")
    found = scan.saved(callback)
    assert [(checkpoint.path.name, checkpoint.score, checkpoint.aliases) for checkpoint in found] == [
        ("a.ckpt", 0.0, ["best"]),
        ("b.ckpt", 1.0, ["latest"]),
    ]
    assert scan.saved(callback) == []
    os.utime(tmp_path / "b.ckpt", (5000, 5000))
    assert [checkpoint.path.name for checkpoint in scan.saved(callback)] == ["b.ckpt"]
    assert scan.finished("success") == []


def test_true_means_at_the_end_of_a_good_run(tmp_path: Path) -> None:
    scan = CheckpointScan(True)
    callback = saved(tmp_path, "a.ckpt")
    assert scan.saved(callback) == []
    assert scan.finished("failed") == []
    (found,) = scan.finished("success")
    assert found.aliases == ["latest", "best"]


def test_false_means_never_and_deleted_files_are_no_checkpoints(tmp_path: Path) -> None:
    callback = saved(tmp_path, "a.ckpt", "b.ckpt")
    (tmp_path / "a.ckpt").unlink()
    assert [checkpoint.path.name for checkpoint in CheckpointScan("all").saved(callback)] == ["b.ckpt"]
    never = CheckpointScan(False)
    assert never.saved(callback) == never.finished("success") == []


def test_a_callback_that_knows_only_its_last_path_is_enough(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_text("")
    (found,) = CheckpointScan("all").saved(SimpleNamespace(last_model_path=tmp_path / "last.ckpt"))
    assert (found.score, found.aliases) == (None, ["latest"])


def test_another_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'always'"):
        CheckpointScan("always")
