import inspect
from typing import Any

import pytest
import torch

from leyden.trainer.core.logging import FabricSink, MutedSink, log, log_dict

DOCUMENTED = (
    "name value prog_bar logger on_step on_epoch reduce_fx enable_graph sync_dist sync_dist_group "
    "add_dataloader_idx batch_size metric_attribute rank_zero_only"
)


class Sink:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log(self, *arguments: Any) -> None:
        self.calls.append(arguments)


class Module:
    log = log
    log_dict = log_dict

    def __init__(self, sink: Any = None, fabric: Any = None) -> None:
        self._log_sink = sink
        self._fabric = fabric


class Fabric:
    def __init__(self) -> None:
        self.logged: list[tuple[str, Any]] = []

    def log(self, name: str, value: Any) -> None:
        self.logged.append((name, value))


def test_log_has_the_documented_signature() -> None:
    assert list(inspect.signature(log).parameters)[1:] == DOCUMENTED.split()


def test_the_sink_gets_everything_by_position() -> None:
    sink = Sink()
    Module(sink).log("a", 1.0, batch_size=3, prog_bar=True)
    assert sink.calls == [("a", 1.0, True, None, None, None, "mean", False, False, None, True, 3, None, False)]


def test_log_dict_passes_its_flags_on_to_each_value() -> None:
    sink = Sink()
    Module(sink).log_dict({"a": 1.0, "b": 2.0}, on_epoch=True, batch_size=3)
    assert [call[:2] for call in sink.calls] == [("a", 1.0), ("b", 2.0)]
    assert {call[2:] for call in sink.calls} == {(False, None, None, True, "mean", False, False, None, True, 3, None, False)}


def test_log_dict_calls_an_overridden_log() -> None:
    class Shouting(Module):
        def log(self, name: str, value: Any, **options: Any) -> None:  # type: ignore[override]
            log(self, name.upper(), value, **options)

    sink = Sink()
    Shouting(sink).log_dict({"a": 1.0})
    assert sink.calls[0][0] == "A"


def test_without_a_trainer_a_value_goes_nowhere_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="no `Trainer` runs this module") as records:
        Module().log("a", 1.0)
    assert records[0].filename == __file__


def test_a_muted_sink_warns_once() -> None:
    module = Module(MutedSink("barebones"))
    with pytest.warns(UserWarning, match="barebones") as records:
        module.log_dict({"a": 1.0, "b": 2.0})
    assert len(records) == 1


def test_in_a_fabric_loop_values_go_to_its_loggers_unless_told_not_to() -> None:
    fabric = Fabric()
    module = Module(fabric=fabric)
    module.log("a", torch.tensor(1.0, requires_grad=True))
    module.log("b", 2.0, logger=False)
    assert [name for name, _ in fabric.logged] == ["a"]
    assert not fabric.logged[0][1].requires_grad
    assert FabricSink(fabric)
