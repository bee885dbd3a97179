import sys

from leyden.trainer.cli.importing import import_choices


def test_what_can_be_chosen_by_name_is_imported():
    import_choices()
    wanted = {"callbacks.early_stopping", "callbacks.timer", "profilers.simple", "loggers.tensorboard"}
    assert {f"leyden.trainer.{name}" for name in wanted} <= sys.modules.keys()
