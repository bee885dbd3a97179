import pytest

from leyden.trainer.cli.class_paths import translated, translated_word


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lightning.pytorch.callbacks.EarlyStopping", "leyden.trainer.callbacks.EarlyStopping"),
        ("pytorch_lightning.callbacks.early_stopping.EarlyStopping", "leyden.trainer.callbacks.early_stopping.EarlyStopping"),
        ("lightning.pytorch.loggers.CSVLogger", "leyden.trainer.loggers.CSVLogger"),
        ("pytorch_lightning.demos.boring_classes.BoringModel", "leyden.trainer.demos.boring_classes.BoringModel"),
        ("lightning.fabric.strategies.DDPStrategy", "leyden.fabric.strategies.DDPStrategy"),
        ("lightning.LightningModule", "leyden.trainer.LightningModule"),
        ("pytorch_lightning.Trainer", "leyden.trainer.Trainer"),
        ("lightning.pytorch.cli.ReduceLROnPlateau", "leyden.trainer.cli.ReduceLROnPlateau"),
        ("ReduceLROnPlateau", "leyden.trainer.cli.ReduceLROnPlateau"),
    ],
)
def test_a_path_below_lightning_is_the_same_below_leyden(old, new):
    assert translated(old) == new


@pytest.mark.parametrize(
    "text",
    [
        "lightning.pytorch.callbacks.NoSuchCallback",
        "lightning.gpu.Thing",
        "torch.optim.SGD",
        "see lightning.pytorch.callbacks.Timer",
        "lightning",
        "",
    ],
)
def test_what_names_no_class_of_ours_stays(text):
    assert translated(text) == text


def test_classes_are_found_at_any_depth_and_nothing_else_changes():
    old = {
        "trainer": {
            "callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "00:00:00:01"}}],
            "max_epochs": 3,
        }
    }
    new = translated(old)
    assert new["trainer"]["callbacks"][0]["class_path"] == "leyden.trainer.callbacks.Timer"
    assert new["trainer"]["callbacks"][0]["init_args"] == {"duration": "00:00:00:01"}
    assert new["trainer"]["max_epochs"] == 3


def test_words_of_a_command_line_are_translated_behind_their_option():
    assert (
        translated_word("--trainer.callbacks+=lightning.pytorch.callbacks.Timer") == "--trainer.callbacks+=leyden.trainer.callbacks.Timer"
    )
    assert translated_word("lightning.pytorch.callbacks.Timer") == "leyden.trainer.callbacks.Timer"
    assert translated_word("--trainer.fast_dev_run") == "--trainer.fast_dev_run"
