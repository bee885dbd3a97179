import pytest

from leyden.trainer.cli.suggestions import suggestion

OPTIONS = ("fit.trainer.max_epochs", "trainer.max_epochs", "trainer.max_steps", "model.width")


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("unrecognized arguments: --trainer.max_epoch=3", "trainer.max_epochs"),
        ("Subcommand 'fit' does not accept option 'trainer.max_stps'", "trainer.max_steps"),
        ('Key "model.widht" is not expected', "model.width"),
        ('No action for key "model.widht" to set its default.', "model.width"),
        ("argument subcommand: invalid choice: 'fitt' (choose from 'fit', 'validate')", "fit"),
        ("- Problem with given class_path 'leyden.trainer.callbacks.EarlyStopping':\n  Option 'monitr' is not accepted", "monitor"),
        ("Subtypes: [<class 'torch.optim.optimizer.Optimizer'>]\n - Expected a dot import path string: Adm", "Adam"),
    ],
)
def test_the_closest_name_is_named(message, wanted):
    assert suggestion(message, OPTIONS) == f" Did you mean {wanted!r}?"


@pytest.mark.parametrize(
    "message", ["something else", "unrecognized arguments: --qqqqqq", "class_path 'no.Such':\n Option 'a' is not accepted"]
)
def test_nothing_is_made_up(message):
    assert suggestion(message, OPTIONS) == ""
