import os

from leyden.core import settings
from leyden.trainer.cli.environment import one_prefix

NAME = "PL_FIT__MODEL__WIDTH"


def test_ours_wins_inside_the_block_and_everything_is_as_before_after_it(monkeypatch):
    monkeypatch.setenv("LEYDEN_FIT__MODEL__WIDTH", "9")
    monkeypatch.setenv(NAME, "5")
    with one_prefix({NAME, "PL_CONFIG"}):
        assert os.environ[NAME] == "9"
        assert "PL_CONFIG" not in os.environ
    assert os.environ[NAME] == "5"


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv(NAME, "")
    with one_prefix({NAME}):
        assert NAME not in os.environ
    assert os.environ[NAME] == ""


def test_class_paths_of_lightning_are_translated(monkeypatch):
    monkeypatch.setenv("PL_MODEL", "lightning.pytorch.demos.boring_classes.BoringModel")
    with one_prefix({"PL_MODEL"}):
        assert os.environ["PL_MODEL"] == "leyden.trainer.demos.boring_classes.BoringModel"


def test_variables_of_the_command_line_are_not_reported_as_unknown():
    with one_prefix({"PL_FIT__DATA__ROOT"}):
        pass
    settings.report_unknown({"LEYDEN_FIT__DATA__ROOT": "x"})  # a warning would be an error here
    assert settings.is_claimed("PL_FIT__DATA__ROOT")
