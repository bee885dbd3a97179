"""Train from a command line and configuration files: `python main.py fit --config config.yaml --model.width=64`.

Then `python main.py test --config config.yaml --ckpt_path runs/…/last.ckpt`; `--help` at any place tells what there is.
"""

from data import Digits
from model import Classifier

from leyden.trainer.cli import LightningArgumentParser, LightningCLI


class DigitsCLI(LightningCLI):
    """The command line of this project: the module learns from the data module how many classes there are."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")


def main() -> None:
    """Parse and run."""
    DigitsCLI(Classifier, Digits, seed_everything_default=7)


if __name__ == "__main__":
    main()
