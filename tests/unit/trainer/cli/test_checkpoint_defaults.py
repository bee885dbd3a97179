import pytest

from leyden.trainer.cli.checkpoint_defaults import kept_in, named_in, set_defaults
from leyden.trainer.cli.parser import LightningArgumentParser
from tests.support.command_line import SmallNet

COMMANDS = ("fit", "predict")


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["predict", "--ckpt_path=a.ckpt"], ("predict", "a.ckpt")),
        (["--config=c.yaml", "fit", "--ckpt_path", "last"], ("fit", "last")),
        (["fit"], None),
        (["--ckpt_path=a.ckpt"], None),
        ({"fit": {"ckpt_path": "a.ckpt"}}, ("fit", "a.ckpt")),
        ({"subcommand": "predict", "predict": {}}, ("predict", None)),
        ({}, None),
    ],
)
def test_the_checkpoint_is_found_in_words_and_configurations(args, wanted):
    assert named_in(args, COMMANDS) == wanted


@pytest.mark.parametrize("word", [None, "", "best", "no/such.ckpt"])
def test_words_that_are_no_file_keep_nothing(word):
    assert kept_in(word) == {}


def parser_of(**options):
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(SmallNet, "model", **options)
    return parser


def test_hyperparameters_become_defaults_that_the_command_line_overrides():
    parser = parser_of()
    assert set_defaults(parser, {"width": 6, "batch_size": 2})
    config = parser.parse_args(["--model.batch_size=3"])
    assert (config.model.width, config.model.batch_size) == (6, 3)


def test_a_class_that_was_chosen_is_the_default_choice():
    parser = parser_of(subclass_mode=True)
    assert set_defaults(parser, {"class_path": f"{SmallNet.__module__}.SmallNet", "init_args": {"width": 6}})
    assert parser.parse_args([]).model.init_args.width == 6


def test_arguments_without_a_class_wait_until_one_is_chosen():
    parser = parser_of(subclass_mode=True)
    assert not set_defaults(parser, {"width": 6})
    assert set_defaults(parser, {"width": 6}, parser.parse_args(["--model=SmallNet"]))
    assert parser.parse_args(["--model=SmallNet"]).model.init_args.width == 6


def test_hyperparameters_of_another_class_are_refused(capsys):
    with pytest.raises(Exception, match="do not fit the model"):
        set_defaults(parser_of(), {"depth": 6})
    assert "Parsing of ckpt_path hyperparameters failed!" in capsys.readouterr().err
