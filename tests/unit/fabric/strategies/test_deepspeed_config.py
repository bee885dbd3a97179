import json

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError
from leyden.fabric.strategies.deepspeed_config import (
    OPTIONS,
    check_sections,
    complete,
    from_options,
    given_config,
    refuse_options_beside,
    stage_of,
    without_zero,
)


def done(config, **arguments):
    return complete(config, **{"precision": "32-true", "world_size": 2, "loss_scaling": {}, "batch_size": None, **arguments})


def test_a_file_and_a_variable_name_a_configuration(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    for config, environ in (
        (str(path), {}),
        (path, {}),
        (None, {"LEYDEN_DEEPSPEED_CONFIG": str(path)}),
        (None, {"PL_DEEPSPEED_CONFIG_PATH": str(path)}),
    ):
        assert given_config(config, environ) == {"zero_optimization": {"stage": 3}}
    assert given_config(None, {}) is None


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"PL_DEEPSPEED_CONFIG_PATH='/no/such\.json': there is no such file"):
        given_config(None, {"PL_DEEPSPEED_CONFIG_PATH": "/no/such.json"})
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        given_config(tmp_path / "a.json", {})
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ConfigTypeError, match="not list"):
        given_config(tmp_path / "a.json", {})
    with pytest.raises(ConfigTypeError, match="not int"):
        given_config(3, {})


def test_a_given_dictionary_is_copied_and_auto_left_out():
    given = {"bfloat16": {"enabled": "auto"}, "zero_optimization": {"stage": 1}}
    config = given_config(given, {})
    config["zero_optimization"]["stage"] = 2
    assert config["bf16"] == {}
    assert given["zero_optimization"]["stage"] == 1


def test_the_documented_arguments_make_a_configuration():
    config = from_options({**OPTIONS, "stage": 3, "offload_optimizer": True, "offload_parameters": True, "offload_params_device": "nvme"})
    assert stage_of(config) == 3
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert config["zero_optimization"]["offload_param"]["nvme_path"] == "/local_nvme"
    assert config["aio"]["block_size"] == 1_048_576
    assert "aio" not in from_options(OPTIONS)
    assert "zero_optimization" not in from_options({**OPTIONS, "zero_optimization": False})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stage": 4}, ConfigError, "the stages 0, 1, 2, 3"),
        ({"stage": "3"}, ConfigTypeError, "expected one of 0, 1, 2, 3"),
        ({"stage": True}, ConfigTypeError, "expected one of"),
        ({"offload_parameters": True}, ConfigError, "has no effect at stage 2: it needs stage=3"),
        ({"offload_optimizer": True, "zero_optimization": False}, ConfigError, "zero_optimization=False"),
        ({"offload_optimizer_device": "disk"}, ConfigError, "accepted are 'cpu', 'nvme'"),
        ({"remote_device": "gpu"}, ConfigError, "accepted are None, 'cpu', 'nvme'"),
        ({"offload_optimizer": True, "offload_optimizer_device": "nvme"}, ConfigError, "needs stage=3, not 2"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        from_options({**OPTIONS, **options})


def test_options_beside_a_configuration_are_refused_by_name():
    refuse_options_beside(None, {**OPTIONS, "stage": 3})
    refuse_options_beside({}, {**OPTIONS, "remote_device": "cpu"})
    with pytest.raises(ConfigError, match=r"DeepSpeedStrategy\(stage=3\) has no effect beside LEYDEN_DEEPSPEED_CONFIG"):
        refuse_options_beside({}, {**OPTIONS, "stage": 3}, "LEYDEN_DEEPSPEED_CONFIG")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"gradient_accumulation_steps": 4}, "the loop decides when to step"),
        ({"managed_gradient_accumulation": True}, "the loop decides when to step"),
        ({"train_batch_size": 3}, "2 rank\\(s\\) times a batch of 1 make 2"),
        ({"train_batch_size": 64, "train_micro_batch_size_per_gpu": 16}, "make 32. Drop train_batch_size"),
        ({"train_micro_batch_size_per_gpu": 0}, "should be an int > 0"),
        ({"bf16": {"enabled": True}}, "enables 'bf16'. Use precision='bf16-mixed'"),
        ({"fp16": {"enabled": True}}, "Use precision='16-mixed'"),
    ],
)
def test_a_configuration_that_contradicts_the_loop_is_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        done(config)


def test_the_loop_decides_when_to_step_and_batches_are_told_for_the_log():
    config = done({"zero_optimization": {"stage": 2}, "train_batch_size": 64})
    assert config["gradient_accumulation_steps"] == 1
    assert config["managed_gradient_accumulation"] is False
    assert config["train_micro_batch_size_per_gpu"] == 32
    assert done({}, batch_size=8)["train_batch_size"] == 16
    with pytest.raises(ConfigError, match="logging_batch_size_per_gpu=8"):
        done({"train_micro_batch_size_per_gpu": 4}, batch_size=8)


def test_communication_overlaps_backward_only_where_it_happens_there():
    for stage, overlaps in ((0, False), (1, False), (2, True), (3, True)):
        assert done({"zero_optimization": {"stage": stage, "overlap_comm": True}})["zero_optimization"]["overlap_comm"] is overlaps


def test_precision_enables_its_section_and_keeps_the_rest_of_it():
    assert done({"bf16": {"immediate_grad_update": True}}, precision="bf16-mixed")["bf16"] == {
        "immediate_grad_update": True,
        "enabled": True,
    }
    scaled = done({"fp16": {"hysteresis": 5}}, precision="16-mixed", loss_scaling={"loss_scale": 0, "hysteresis": 2})
    assert scaled["fp16"] == {"loss_scale": 0, "hysteresis": 5, "enabled": True}
    with pytest.raises(ConfigError, match="disables 'bf16'"):
        done({"bf16": {"enabled": False}}, precision="bf16-true")
    with pytest.raises(UnsupportedError, match="64-true"):
        done({}, precision="64-true")


def test_gradients_are_clipped_only_where_the_configuration_says_so():
    assert done({})["gradient_clipping"] == 0.0, "DeepSpeed's own default is 1.0"
    assert done({"gradient_clipping": 0.5})["gradient_clipping"] == 0.5


def test_the_given_configuration_is_left_as_it_was():
    given = {"zero_optimization": {"stage": 1, "overlap_comm": True}}
    done(given)
    assert given == {"zero_optimization": {"stage": 1, "overlap_comm": True}}


def test_sections_for_what_setup_gets_are_refused():
    with pytest.raises(ConfigError, match="`setup` was given one too"):
        check_sections({"optimizer": {}}, has_optimizer=True, has_scheduler=False)
    with pytest.raises(ConfigError, match="model for inference"):
        check_sections({"scheduler": {}}, has_optimizer=False, has_scheduler=False)
    with pytest.raises(ConfigError, match="'scheduler' section"):
        check_sections({"scheduler": {}}, has_optimizer=True, has_scheduler=True)
    check_sections({"scheduler": {}}, has_optimizer=True, has_scheduler=False)


def test_inference_needs_zero_for_weights_only():
    assert stage_of(without_zero({"zero_optimization": {"stage": 2}})) == 0
    assert stage_of(without_zero({"zero_optimization": {"stage": 3}})) == 3
