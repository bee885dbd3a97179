import subprocess
import sys

from leyden.trainer.cli.importing import import_choices


def test_what_can_be_chosen_by_name_is_imported():
    import_choices()
    wanted = {"callbacks.early_stopping", "callbacks.timer", "profilers.simple", "loggers.tensorboard"}
    assert {f"leyden.trainer.{name}" for name in wanted} <= sys.modules.keys()


def test_the_trainer_comes_without_the_parser():
    program = "from leyden.trainer import Trainer; import sys; sys.exit('jsonargparse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
