"""What a module's methods may be and return: refused with the documented words, or taken as documented."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.trainer import Callback, LightningDataModule, LightningModule, Trainer
from leyden.trainer.demos.boring_classes import BoringModel, ManualOptimBoringModel, RandomDataset
from leyden.trainer.loggers import DummyLogger
from leyden.trainer.utilities.exceptions import MisconfigurationException
from leyden.trainer.utilities.warnings import PossibleUserWarning

pytestmark = pytest.mark.filterwarnings("ignore:You defined a .validation_step.", "ignore:The number of training batches")


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **quiet, **arguments}
    return Trainer(**given)


def loader(length: int = 2) -> DataLoader[Tensor]:
    return DataLoader(RandomDataset(32, length))


def with_methods(base: type = BoringModel, **methods: Any) -> Any:
    return type("Mine", (base,), methods)()


def loss_of(module: Any, batch: Any) -> Any:
    return module.step(batch)


# -- methods that must be there ----------------------------------------------------------------------------------


class Bare(LightningModule):
    pass


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        ("fit", r"No `training_step\(\)` method defined"),
        ("validate", r"No `validation_step\(\)` method defined to run `Trainer\.validate`"),
        ("test", r"No `test_step\(\)` method defined to run `Trainer\.test`"),
        ("predict", r"`Trainer\.predict` requires `forward` method to run"),
    ],
)
def test_an_entry_point_needs_its_step(fn: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=words):
        getattr(trainer(tmp_path), fn)(Bare(), loader())


def test_fit_needs_optimizers(tmp_path: Path) -> None:
    class Steps(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any: ...

    with pytest.raises(MisconfigurationException, match=r"No `configure_optimizers\(\)` method defined"):
        trainer(tmp_path).fit(Steps(), loader())


@pytest.mark.parametrize("hook", ["training_epoch_end", "validation_epoch_end", "test_epoch_end"])
def test_hooks_that_are_gone_are_named_with_their_successor(hook: str, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=f"Support for `{hook}` has been removed.*`on_"):
        trainer(tmp_path).fit(with_methods(**{hook: lambda self, outputs: None}))


def test_one_half_of_validation_is_warned_of(tmp_path: Path) -> None:
    class Unvalidated(BoringModel):
        validation_step = LightningModule.validation_step

    with pytest.warns(PossibleUserWarning, match="have no `validation_step`. Skipping val loop"):
        trainer(tmp_path, limit_train_batches=1).fit(Unvalidated())


# -- training_step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", 5, [1]])
def test_a_step_returns_a_tensor_a_dict_or_nothing(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`training_step` must return a Tensor, a dict, or None"):
        trainer(tmp_path).fit(with_methods(training_step=lambda self, batch, batch_idx: value))


@pytest.mark.parametrize("value", [{"a": 1}, {"loss": None}])
def test_a_dict_needs_a_loss(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the 'loss' key needs to be present"):
        trainer(tmp_path).fit(with_methods(training_step=lambda self, batch, batch_idx: value))


def test_an_optimizer_index_is_no_more(tmp_path: Path) -> None:
    module = with_methods(training_step=lambda self, batch, batch_idx, optimizer_idx: None)
    with pytest.raises(RuntimeError, match="Remove the `optimizer_idx` argument from `training_step`"):
        trainer(tmp_path).fit(module)


@pytest.mark.parametrize("takes_index", [True, False])
def test_a_step_may_leave_the_index_out(takes_index: bool, tmp_path: Path) -> None:
    seen: list[Any] = []

    def with_index(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch_idx)
        return loss_of(self, batch)

    def without(self: Any, batch: Any) -> Any:
        seen.append(None)
        return loss_of(self, batch)

    trainer(tmp_path, limit_train_batches=2, limit_val_batches=0).fit(with_methods(training_step=with_index if takes_index else without))
    assert seen == ([0, 1] if takes_index else [None, None])


def test_outputs_of_a_skipped_batch_are_empty(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(outputs)

    module = with_methods(training_step=lambda self, batch, batch_idx: None)
    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        trainer(tmp_path, limit_train_batches=1, limit_val_batches=0, callbacks=[Watch()]).fit(module)
    assert seen == [{}]


def test_minus_one_of_a_callback_means_nothing(tmp_path: Path) -> None:
    class Says(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> Any:
            return -1

    made = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0, callbacks=[Says()])
    made.fit(BoringModel())
    assert made.global_step == 2


# -- dataloader_idx ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "hook", "method"),
    [
        ("validate", "validation_step", lambda self, batch, batch_idx: None),
        ("validate", "on_validation_batch_start", lambda self, batch, batch_idx: None),
        ("test", "test_step", lambda self, batch, batch_idx: None),
        ("predict", "predict_step", lambda self, batch, batch_idx: None),
    ],
)
def test_several_loaders_need_their_number(fn: str, hook: str, method: Any, tmp_path: Path) -> None:
    steps = {"validation_step": lambda self, batch, batch_idx, dataloader_idx=0: None} if hook.startswith("on_") else {}
    with pytest.raises(RuntimeError, match=rf"no `dataloader_idx` argument in `Mine\.{hook}`"):
        getattr(trainer(tmp_path), fn)(with_methods(**steps, **{hook: method}), [loader(), loader()])


def test_one_loader_has_no_number(tmp_path: Path) -> None:
    module = with_methods(validation_step=lambda self, batch, batch_idx, dataloader_idx: None)
    with pytest.raises(RuntimeError, match=r"have included `dataloader_idx` in `Mine\.validation_step`"):
        trainer(tmp_path).validate(module, loader())


# -- optimizers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", 1, [], {}, {"lr_scheduler": 1}], ids=str)
def test_only_documented_forms_of_optimizers_are_taken(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown configuration for model optimizers"):
        trainer(tmp_path).fit(with_methods(configure_optimizers=lambda self: value))


def test_several_optimizers_are_stepped_by_hand(tmp_path: Path) -> None:
    module = with_methods(configure_optimizers=lambda self: [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)])
    with pytest.raises(RuntimeError, match="multiple optimizers is only supported with manual optimization"):
        trainer(tmp_path).fit(module)


def test_no_optimizer_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="will run with no optimizer"):
        trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(with_methods(configure_optimizers=lambda self: None))


def test_a_closure_must_be_run(tmp_path: Path) -> None:
    module = with_methods(optimizer_step=lambda self, epoch, batch_idx, optimizer, optimizer_closure: None)
    with pytest.raises(ConfigError, match="The closure hasn't been executed"):
        trainer(tmp_path).fit(module)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"gradient_clip_val": 5.0, "gradient_clip_algorithm": "norm"}, "gradient_clip_val"),
        ({"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, "gradient_clip_algorithm"),
    ],
)
def test_clip_values_do_not_contradict_the_trainers(own: dict[str, Any], words: str, tmp_path: Path) -> None:
    def clip(self: Any, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
        self.clip_gradients(optimizer, **own)

    module = with_methods(configure_gradient_clipping=clip)
    with pytest.raises(ConfigError, match=rf"and have passed `clip_gradients\({words}="):
        trainer(tmp_path, gradient_clip_val=1.0, gradient_clip_algorithm="norm").fit(module)


def test_optimizers_are_handed_out_as_their_own_kind(tmp_path: Path) -> None:
    module = BoringModel()
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(module)
    optimizer: Any = module.optimizers()
    assert type(optimizer).__name__ == "LightningSGD"
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups is optimizer.optimizer.param_groups
    assert type(module.optimizers(use_pl_optimizer=False)) is torch.optim.SGD


# -- manual optimisation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"accumulate_grad_batches": 2}, "Automatic gradient accumulation is not supported"),
        ({"gradient_clip_val": 1.0}, "Automatic gradient clipping is not supported"),
    ],
)
def test_who_steps_by_hand_accumulates_and_clips_by_hand(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer(tmp_path, **arguments).fit(ManualOptimBoringModel())


def test_a_step_by_hand_returns_a_tensor_a_dict_or_nothing(tmp_path: Path) -> None:
    module = with_methods(ManualOptimBoringModel, training_step=lambda self, batch, batch_idx: "a")
    with pytest.raises(ConfigError, match="return a Tensor or have no return"):
        trainer(tmp_path).fit(module)


def test_backward_by_hand_is_for_manual_mode(tmp_path: Path) -> None:
    module = with_methods(training_step=lambda self, batch, batch_idx: self.manual_backward(loss_of(self, batch)))
    with pytest.raises(ConfigError, match="`automatic_optimization` is True"):
        trainer(tmp_path).fit(module)


# -- logging -----------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "a", "value": torch.ones(2)}, "the tensor must have a single element"),
    ({"name": "a", "value": [1]}, "`list` values cannot be logged"),
    ({"name": "a", "value": "x"}, "`str` values cannot be logged"),
    ({"name": "a", "value": {"b": {"c": 1}}}, "cannot be logged"),
    ({"name": "a/dataloader_idx_0", "value": 1.0}, "/dataloader_idx_"),
    ({"name": "a", "value": 1.0, "on_step": False, "on_epoch": False}, "is not useful"),
    ({"name": "a", "value": 1.0, "on_epoch": True, "reduce_fx": "median"}, "are supported"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_logged_is_refused(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        trainer(tmp_path).fit(with_methods(training_step=lambda self, batch, batch_idx: self.log(**arguments)))
    assert words in str(found.value)


def test_one_name_has_one_meaning_in_a_hook(tmp_path: Path) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("a", 1.0)
        self.log("a", 1.0, prog_bar=True)

    with pytest.raises(ConfigError, match="twice in `training_step` with different arguments"):
        trainer(tmp_path).fit(with_methods(training_step=training_step))


@pytest.mark.parametrize("hook", ["on_fit_start", "on_fit_end", "on_train_end", "on_validation_end", "on_save_checkpoint", "setup"])
def test_some_hooks_log_nothing(hook: str, tmp_path: Path) -> None:
    def log(self: Any, *args: Any, **kwargs: Any) -> None:
        self.log("a", 1.0)

    made = trainer(tmp_path, limit_train_batches=1, limit_val_batches=1, enable_checkpointing=True)
    with pytest.raises(ConfigError, match=rf"You can't `self\.log\(\)` inside `{hook}`|not managed by the `Trainer` control flow"):
        made.fit(with_methods(**{hook: log}))


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_end", "on_validation_epoch_end"])
def test_hooks_of_an_epoch_log_no_steps(hook: str, tmp_path: Path) -> None:
    module = with_methods(**{hook: lambda self: self.log("a", 1.0, on_step=True)})
    with pytest.raises(ConfigError, match=rf"You can't `self\.log\(on_step=True\)` inside `{hook}`"):
        trainer(tmp_path, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0).fit(module)


def test_predicting_has_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it doesn't support logging"):
        trainer(tmp_path).predict(with_methods(predict_step=lambda self, batch, batch_idx: self.log("a", 1.0)))


# -- a module by itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trainer", "optimizers", "lr_schedulers"])
def test_a_module_without_a_trainer_says_so(name: str) -> None:
    with pytest.raises(RuntimeError, match="BoringModel is not attached to a `Trainer`"):
        _ask(BoringModel(), name)


def _ask(module: Any, name: str) -> None:
    found = getattr(module, name)
    found()


def test_a_module_without_a_trainer_knows_its_place() -> None:
    module = BoringModel()
    assert (module.current_epoch, module.global_step, module.global_rank, module.logger, module.loggers) == (0, 0, 0, None, [])
    with pytest.warns(UserWarning, match="no `Trainer`"):
        module.log("a", 1.0)


def test_a_module_of_a_run_can_be_copied_and_pickled(tmp_path: Path) -> None:
    module = BoringModel()
    trainer(tmp_path, fast_dev_run=True).fit(module)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with pytest.raises(RuntimeError, match="is not attached"):
            _ = other.trainer


def test_children_share_the_trainer(tmp_path: Path) -> None:
    module = BoringModel()
    module.child = BoringModel()
    made = trainer(tmp_path, fast_dev_run=True)
    made.fit(module)
    assert module.child.trainer is made


def test_parts_in_eval_mode_stay_so_and_are_told(tmp_path: Path) -> None:
    module = BoringModel()
    module.layer.eval()
    with pytest.warns(PossibleUserWarning, match=r"Found 1 module\(s\) in eval mode at the start of training"):
        trainer(tmp_path, limit_train_batches=1, limit_val_batches=1).fit(module)
    assert (module.training, module.layer.training) == (True, False)


def test_a_prediction_of_nothing_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="predict returned None"):
        assert trainer(tmp_path).predict(with_methods(predict_step=lambda self, batch, batch_idx: None), loader(2)) == [None, None]


def test_loading_is_for_classes() -> None:
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        BoringModel().load_from_checkpoint("x")


def test_strictness_is_decided_once(tmp_path: Path) -> None:
    made = trainer(tmp_path, fast_dev_run=True)
    made.fit(BoringModel())
    made.save_checkpoint(tmp_path / "a.ckpt")

    class Lax(BoringModel):
        def __init__(self) -> None:
            super().__init__()
            self.strict_loading = False

    with pytest.raises(ValueError, match="in conflict with"):
        Lax.load_from_checkpoint(tmp_path / "a.ckpt", strict=True)


def test_an_argument_that_no_checkpoint_knows_is_asked_for(tmp_path: Path) -> None:
    class Needing(BoringModel):
        def __init__(self, width: int) -> None:
            super().__init__()

    made = trainer(tmp_path, fast_dev_run=True)
    made.fit(Needing(3))
    made.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match="width is not stored"):
        Needing.load_from_checkpoint(tmp_path / "a.ckpt")
    assert isinstance(Needing.load_from_checkpoint(tmp_path / "a.ckpt", width=3), Needing)


def test_a_data_module_shows_its_sizes() -> None:
    made = LightningDataModule.from_datasets(RandomDataset(2, 3), [RandomDataset(2, 2), RandomDataset(2, 4)])
    assert str(made).splitlines() == [
        "{Train dataloader: size=3}",
        "{Validation dataloader: 1. size=2 ; 2. size=4}",
        "{Test dataloader: None}",
        "{Predict dataloader: None}",
    ]


def test_keys_of_hyper_parameters_have_names() -> None:
    names = [(cls.CHECKPOINT_HYPER_PARAMS_KEY, cls.CHECKPOINT_HYPER_PARAMS_NAME) for cls in (LightningModule, LightningDataModule)]
    assert names == [("hyper_parameters", "hparams_name"), ("datamodule_hyper_parameters", "datamodule_hparams_name")]


def test_loggers_are_offered_the_graph(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Drawing(DummyLogger):
        def log_graph(self, model: Any, input_array: Any = None) -> None:
            seen.append(model)

    module = BoringModel()
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0, logger=Drawing()).fit(module)
    assert seen == [module]


def test_unwrapped_parameters_are_the_modules_own(tmp_path: Path) -> None:
    module, made = BoringModel(), trainer(tmp_path, fast_dev_run=True)
    made.fit(module)
    assert isinstance(made.model, nn.Module)
    assert {id(entry) for entry in made.model.parameters()} == {id(entry) for entry in module.parameters()}


# -- hooks that cannot be called -----------------------------------------------------------------------------------


def test_a_callback_that_takes_too_little_is_refused_before_anything_runs(tmp_path: Path) -> None:
    class Short(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any) -> None:  # pyrefly: ignore - what is refused
            """Never called."""

    with pytest.raises(TypeError, match=r"Define it as `def on_train_batch_end\(self, trainer, pl_module, outputs"):
        trainer(tmp_path, callbacks=Short()).fit(BoringModel(), loader())


def test_a_modules_hook_may_take_the_number_of_its_loader_or_anything(tmp_path: Path) -> None:
    def hook(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take three."""

    module = with_methods(on_validation_batch_start=hook, on_train_batch_start=lambda self, *args: None)
    trainer(tmp_path).fit(module, loader(), loader())


def test_a_misspelled_hook_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="`Mine.on_train_epoch_ends` is no hook.*Did you mean `on_train_epoch_end`"):
        trainer(tmp_path).fit(with_methods(on_train_epoch_ends=lambda self: None), loader())
