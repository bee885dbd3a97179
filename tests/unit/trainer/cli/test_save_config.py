from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from leyden.core.storage import open_storage
from leyden.trainer.cli import LightningArgumentParser, SaveConfigCallback
from tests.support.command_line import SmallNet


class OneRank:
    def broadcast(self, value):
        return value


class Place:
    """What the callback asks a trainer for."""

    def __init__(self, log_dir):
        self.log_dir, self.is_global_zero, self.strategy = log_dir, True, OneRank()


@pytest.fixture
def parser():
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(SmallNet, "model")
    return parser


def saved(parser, place, **kwargs):
    callback = SaveConfigCallback(parser, parser.parse_args(["--model.width=6"]), **kwargs)
    callback.setup(Place(place), None, "fit")
    return callback


def test_the_file_holds_the_whole_configuration_and_is_read_again(parser, tmp_path):
    saved(parser, str(tmp_path / "new"))
    path = tmp_path / "new" / "config.yaml"
    assert path.read_text().startswith("# leyden==")
    assert yaml.safe_load(path.read_text())["model"] == {"width": 6, "batch_size": 8, "act": None}
    assert parser.parse_args([f"--config={path}"]).model.width == 6


def test_a_file_of_another_run_is_not_overwritten(parser, tmp_path):
    saved(parser, str(tmp_path))
    with pytest.raises(RuntimeError, match=r"config.yaml to NOT exist. Aborting to avoid overwriting results of a previous run"):
        saved(parser, str(tmp_path))
    saved(parser, str(tmp_path), overwrite=True)
    saved(parser, str(tmp_path), config_filename="other.yaml")
    assert (tmp_path / "other.yaml").exists()


def test_it_is_saved_once_per_command(parser, tmp_path):
    callback = saved(parser, str(tmp_path))
    (tmp_path / "config.yaml").unlink()
    callback.setup(Place(str(tmp_path)), None, "test")
    assert not (tmp_path / "config.yaml").exists()


def test_a_later_attempt_of_a_job_goes_on_in_the_same_directory(parser, tmp_path, monkeypatch):
    saved(parser, str(tmp_path))
    for name, value in {"JOB_ID": "j", "ATTEMPT": "2"}.items():
        monkeypatch.setenv(f"LEYDEN_{name}", value)
    for name in ("STEP_DIR", "OUTPUT_DIR", "ATTEMPT_DIR"):
        monkeypatch.setenv(f"LEYDEN_{name}", str(tmp_path))
    monkeypatch.setenv("LEYDEN_METRICS_FILE", str(tmp_path / "metrics.jsonl"))
    saved(parser, str(tmp_path))


def test_a_url_is_written_to_its_storage(parser):
    saved(parser, "memory://cli-config/run")
    assert b"width: 6" in open_storage("memory://cli-config").read("run/config.yaml")
    with pytest.raises(RuntimeError, match="Aborting to avoid overwriting"):
        saved(parser, "memory://cli-config/run")


def test_saving_nothing_at_all_is_refused():
    with pytest.raises(ValueError, match="`save_to_log_dir=False` only makes sense when subclassing"):
        SaveConfigCallback(LightningArgumentParser(), Namespace(), save_to_log_dir=False)


def test_a_subclass_saves_elsewhere(parser, tmp_path):
    class Elsewhere(SaveConfigCallback):
        def save_config(self, trainer, pl_module, stage):
            self.said = (stage, self.parser.dump(self.config))

    callback = Elsewhere(parser, parser.parse_args([]), save_to_log_dir=False)
    callback.setup(Place(str(tmp_path)), None, "validate")
    assert callback.said[0] == "validate"
    assert "width: 4" in callback.said[1]
    assert list(Path(tmp_path).iterdir()) == []
