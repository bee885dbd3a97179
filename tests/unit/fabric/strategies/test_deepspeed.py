"""What `DeepSpeedStrategy` decides without its engine; the engine runs in tests/integration/fabric/test_deepspeed.py."""

import os
import pickle
import sys

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, CorruptDataError, MissingDependencyError, StateError, StorageError, UnsupportedError
from leyden.core.optional import installed
from leyden.fabric.precision.deepspeed import DeepSpeedPrecision
from leyden.fabric.strategies import deepspeed_engine, deepspeed_files
from leyden.fabric.strategies.deepspeed import DeepSpeedStrategy
from leyden.fabric.strategies.deepspeed_engine import EngineRoot, Engines, check_fit, launcher_variables, require_deepspeed
from leyden.fabric.strategies.registry import STRATEGY_REGISTRY

needs_deepspeed = pytest.mark.skipif(
    not installed("deepspeed"), reason="deepspeed is not installed: docs/howto/deepspeed.md has the command"
)


class FakeEngine:
    """What of an engine the registry of engines touches."""

    def __init__(self, stage=2):
        self.config = {"zero_optimization": {"stage": stage}}
        self.optimizer = self
        self.refreshed = 0
        self.destroyed = False

    def refresh_fp32_params(self):
        self.refreshed += 1

    def destroy(self):
        self.destroyed = True


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def adam(module):
    return torch.optim.Adam(module.parameters())


def test_a_missing_deepspeed_is_told_with_the_commands(monkeypatch):
    monkeypatch.setattr(deepspeed_engine, "installed", lambda name: False)
    with pytest.raises(MissingDependencyError, match=r"pip install setuptools .*DS_BUILD_OPS=0 pip install --no-build-isolation"):
        require_deepspeed()


def test_an_old_deepspeed_is_refused(monkeypatch):
    monkeypatch.setattr(deepspeed_engine, "installed", lambda name: True)
    monkeypatch.setattr(deepspeed_engine.metadata, "version", lambda name: "0.18.9+cu128")
    with pytest.raises(MissingDependencyError, match=r"needs deepspeed>=0.19, but 0.18.9"):
        require_deepspeed()


@needs_deepspeed
def test_building_the_strategy_does_not_import_deepspeed():
    before = "deepspeed" in sys.modules
    assert DeepSpeedStrategy(stage=3).zero_stage_3
    assert ("deepspeed" in sys.modules) is before


@needs_deepspeed
@pytest.mark.parametrize("name", [name for name in STRATEGY_REGISTRY if name.startswith("deepspeed")])
def test_every_registered_preset_can_be_built(name):
    strategy = STRATEGY_REGISTRY.get(name)
    assert strategy.stage == next((stage for stage in (1, 3) if f"stage_{stage}" in name), 2)
    assert ("offload_optimizer" in strategy.config["zero_optimization"]) is ("offload" in name)


@needs_deepspeed
def test_the_variable_replaces_the_arguments_and_refuses_them_beside_it(monkeypatch, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 1}, "gradient_clipping": 0.5}')
    monkeypatch.setenv("LEYDEN_DEEPSPEED_CONFIG", str(path))
    assert DeepSpeedStrategy().config["gradient_clipping"] == 0.5
    with pytest.raises(ConfigError, match="beside LEYDEN_DEEPSPEED_CONFIG"):
        DeepSpeedStrategy(stage=3)


@needs_deepspeed
def test_what_the_engine_owns_is_refused_with_the_way_to_get_it(net):
    strategy = DeepSpeedStrategy(stage=3)
    with pytest.raises(
        UnsupportedError, match=r"set gradient_clipping in the config, DeepSpeedStrategy\(config=\{\"gradient_clipping\": 1.0"
    ):
        strategy.clip_gradients_norm(net, adam(net), 1.0)
    with pytest.raises(UnsupportedError, match="by norm only"):
        strategy.clip_gradients_value(net, adam(net), 1.0)
    with pytest.raises(StateError, match=r"model, optimizer = fabric.setup\(model, optimizer\)"):
        strategy.setup_optimizer(adam(net))
    with pytest.raises(ConfigError, match=r"only one optimizer is supported with DeepSpeed\. Got 2"):
        strategy.setup_module_and_optimizers(net, [adam(net), adam(net)])
    with pytest.raises(UnsupportedError, match="`empty_init=False` is not a valid choice"):
        strategy.module_init_context(empty_init=False)


@needs_deepspeed
def test_one_rank_has_no_reduction_to_wait_with_and_is_not_warned(net, recwarn):
    with DeepSpeedStrategy(stage=2).no_backward_sync(net):
        assert torch.is_grad_enabled()
    assert not recwarn


def test_precision_casts_inputs_and_only_true_ones_weights():
    mixed, true = DeepSpeedPrecision("bf16-mixed"), DeepSpeedPrecision("bf16-true")
    assert mixed.convert_module(nn.Linear(1, 1)).weight.dtype is torch.float32
    assert true.convert_module(nn.Linear(1, 1)).weight.dtype is torch.bfloat16
    assert mixed.convert_input(torch.ones(1)).dtype is torch.bfloat16
    assert mixed.convert_output(torch.ones(1, dtype=torch.bfloat16)).dtype is torch.float32
    with true.module_init_context():
        assert nn.Linear(1, 1).weight.dtype is torch.bfloat16
    assert DeepSpeedPrecision().plain
    with pytest.raises(UnsupportedError, match="not supported in DeepSpeed"):
        DeepSpeedPrecision("64-true")


def test_the_root_runs_any_method_and_keeps_the_users_names(net):
    net.twice = lambda x: 2 * net(x)
    root, x = EngineRoot(net), torch.ones(3, 2)
    assert list(root.state_dict()) == [name for name, _ in root.named_parameters()] == list(net.state_dict())
    assert torch.equal(root("twice", (x,), {}), 2 * root("forward", (x,), {}))
    assert next(root.parameters()) is next(net.parameters())


def test_local_rank_is_lent_to_deepspeed_and_taken_back(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with launcher_variables(3):
        assert os.environ["LOCAL_RANK"] == "3"
    assert "LOCAL_RANK" not in os.environ
    monkeypatch.setenv("LOCAL_RANK", "1")
    with launcher_variables(3):
        pass
    assert os.environ["LOCAL_RANK"] == "1"


def test_engines_are_found_by_module_and_optimizer(net):
    engines, engine, optimizer = Engines(), FakeEngine(), adam(net)
    engines.add(engine, net, optimizer)
    assert engines.by_module(net).engine is engine is engines.by_optimizer(optimizer).engine is engines.for_training(None)
    with pytest.raises(StateError, match="was not set up"):
        engines.by_optimizer(adam(net))
    engines.close(has_group=True)
    assert engine.destroyed
    assert not engines.has(net)


def test_an_engine_whose_group_is_gone_is_let_go(net):
    engines, engine = Engines(), FakeEngine()
    engines.add(engine, net, adam(net))
    engines.close(has_group=False)
    assert not engine.destroyed
    assert not engines.has(net)


def test_a_checkpoint_holds_exactly_one_engine(net):
    engines, optimizer, second = Engines(), adam(net), nn.Linear(1, 1)
    engines.add(FakeEngine(), net, optimizer)
    assert engines.one_of({"model": net, "optimizer": optimizer}, "save").module is net
    for objects, words in (
        ({}, "state holds none"),
        ({"a": net, "b": second}, "exactly one model at a time, but state holds 'a', 'b'"),
        ({"b": second}, r"state\['b'\] was not set up"),
        ({"model": net, "optimizer": adam(second)}, "not the optimizer that the model was set up with"),
    ):
        with pytest.raises(ConfigError, match=words):
            engines.one_of(objects, "save")


def test_backward_needs_to_know_which_of_several_models(net):
    engines, other = Engines(), nn.Linear(1, 1)
    with pytest.raises(StateError, match="not set up for training"):
        engines.for_training(None)
    engines.add(FakeEngine(), net, adam(net))
    inference = engines.add(FakeEngine(), other, None).engine
    assert engines.for_training(None) is engines.by_module(net).engine
    with pytest.raises(StateError, match="not set up for training"):
        engines.for_training(inference)
    engines.add(FakeEngine(), nn.Linear(1, 1), adam(other))
    with pytest.raises(ConfigError, match=r"fabric.backward\(loss, model=model\)"):
        engines.for_training(None)


def test_weights_loaded_past_the_engine_reach_the_copies_it_steps_on(net):
    engines, engine = Engines(), FakeEngine(stage=1)
    engines.add(engine, net, adam(net))
    net.load_state_dict(net.state_dict())
    assert engine.refreshed == 1


def test_a_module_in_parts_neither_saves_nor_loads_by_itself(net):
    engines = Engines()
    state = net.state_dict()
    engines.add(FakeEngine(stage=3), net, adam(net))
    for call in (net.state_dict, lambda: net.load_state_dict(state)):
        with pytest.raises(StateError, match="keeps this module in parts"):
            call()
    with engines.working():
        net.load_state_dict(net.state_dict())


def test_names_and_shapes_are_compared_before_anything_changes():
    check_fit({"a": (1,)}, {"a": (1,)}, "Net", is_strict=True)
    check_fit({"a": (1,)}, {"b": (2,)}, "Net", is_strict=False)
    with pytest.raises(ConfigError, match=r"missing: a; unexpected: c; of another shape: b \(3,\) for \(2,\)"):
        check_fit({"a": (1,), "b": (2,)}, {"b": (3,), "c": (1,)}, "Net", is_strict=True)


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_files_that_would_import_strange_names_are_refused_unread(tmp_path):
    path = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": {}, "evil": Evil()}, path)
    with pytest.raises(StorageError, match=r"would import 'posix.system' when DeepSpeed loads it.*weights_only=False"):
        deepspeed_files.check_names(path)
    torch.save({"module": {"a": torch.ones(1)}}, path)
    deepspeed_files.check_names(path)
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(CorruptDataError, match="damaged"):
        deepspeed_files.check_names(path)


def test_the_engines_folder_is_found_in_ours_and_in_others(tmp_path):
    with pytest.raises(CorruptDataError, match="holds no files of DeepSpeed's engine"):
        deepspeed_files.locate(tmp_path)
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "global_step5" / "mp_rank_00_model_states.pt").touch()
    assert deepspeed_files.locate(tmp_path) == (tmp_path, "global_step5")
    assert deepspeed_files.foreign_folder(tmp_path) == tmp_path
    ours = tmp_path / "deepspeed" / "checkpoint"
    ours.mkdir(parents=True)
    (ours / "mp_rank_00_model_states.pt").touch()
    assert deepspeed_files.locate(tmp_path) == (tmp_path / "deepspeed", "checkpoint")


@pytest.mark.parametrize(
    ("saved", "stage", "ranks", "with_optimizer", "words"),
    [
        (3, 2, 2, False, "saved at ZeRO stage 3, this run is at stage 2"),
        (0, 1, 2, True, "Use stage=0"),
        (2, 2, 4, True, "saved by 4 ranks, this run has 2"),
        (2, 1, 4, False, None),
        (1, 2, 2, True, None),
        (0, 0, 4, True, None),
    ],
)
def test_files_of_another_stage_or_world_size_are_refused_where_they_are_cut_otherwise(
    tmp_path, saved, stage, ranks, with_optimizer, words
):
    states = {"ds_config": {"zero_optimization": {"stage": saved}}, "dp_world_size": ranks}
    if words is None:
        deepspeed_files.check_origin(tmp_path, states, stage=stage, world_size=2, with_optimizer=with_optimizer)
        return
    with pytest.raises(ConfigError, match=words):
        deepspeed_files.check_origin(tmp_path, states, stage=stage, world_size=2, with_optimizer=with_optimizer)


def test_shapes_are_told_where_the_file_holds_placeholders():
    states = {
        "module": {"a": torch.empty(0), "b": torch.empty(0), "tied": torch.empty(0), "buffer": torch.ones(3), "extra": 1},
        "param_shapes": [{"a": torch.Size([2, 2])}],
        "frozen_param_shapes": {"b": torch.Size([4])},
        "shared_params": [["tied", "a"]],
    }
    assert deepspeed_files.saved_shapes(states) == {"a": (2, 2), "b": (4,), "tied": (2, 2), "buffer": (3,), "extra": None}
