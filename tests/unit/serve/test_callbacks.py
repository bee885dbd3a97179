"""Callbacks are told of steps in their order, and one that fails harms nobody."""

import pickle
import re
from typing import Any

import pytest

from leyden.core.errors import ConfigTypeError
from leyden.serve.api import LitAPI
from leyden.serve.callbacks import Callback, CallbackRunner, EventTypes, NoopCallback
from leyden.serve.callbacks.defaults import PredictionTimeLogger, RequestTracker
from leyden.serve.executors.choice import executor_for
from leyden.serve.executors.requests import Request
from tests.support.heard import Heard


class Noted(Callback):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda lit_api: self.seen.append(name)
        return super().__getattribute__(name)


class Failing(Callback):
    def on_before_predict(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("harmless")


class Plain(LitAPI):
    def predict(self, x: Any) -> Any:
        return x


class Pieces(LitAPI):
    def predict(self, x: Any) -> Any:
        yield x


class Later(LitAPI):
    async def predict(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    "api", [Plain(), Plain(max_batch_size=4), Pieces(stream=True), Pieces(stream=True, max_batch_size=4), Later(enable_async=True)]
)
def test_every_step_is_told_once_for_a_batch(api: LitAPI, caplog: pytest.LogCaptureFixture) -> None:
    noted, heard = Noted(), Heard()
    runner = CallbackRunner([Failing(), noted])
    executor_for(api, api.check(), runner).run([Request(0, b"[1]")], heard)
    assert heard.faults == {}
    steps = ["on_before_decode_request", "on_after_decode_request", "on_before_predict"]
    assert noted.seen[:3] == steps
    assert sorted(noted.seen) == sorted([*steps, "on_after_predict", "on_before_encode_response", "on_after_encode_response"])
    assert "Failing.on_before_predict() failed" in caplog.text


def test_events_are_names_of_methods() -> None:
    assert all(callable(getattr(NoopCallback(), event)) for event in EventTypes)
    for event in EventTypes:
        CallbackRunner(NoopCallback()).trigger_event(event, lit_api=None)


def test_what_is_no_callback_is_refused() -> None:
    with pytest.raises(ConfigTypeError, match=r"pass an object, Noted\(\)"):
        CallbackRunner([Noted])  # type: ignore[list-item]
    with pytest.raises(ConfigTypeError, match="callbacks=1 is not accepted"):
        CallbackRunner([1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "api", [Plain(), Plain(max_batch_size=4), Pieces(stream=True), Pieces(stream=True, max_batch_size=4), Later(enable_async=True)]
)
def test_how_long_predictions_take_is_logged(api: LitAPI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "leyden")
    runner = CallbackRunner(pickle.loads(pickle.dumps(PredictionTimeLogger())))
    executor_for(api, api.check(), runner).run([Request(0, b"[1]")], Heard())
    (record,) = caplog.records
    assert re.fullmatch(r"Prediction took \d+\.\d\d seconds", record.message)


def test_active_requests_are_logged_if_they_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "leyden")
    tracker = RequestTracker()
    tracker.on_request(active_requests=3, litserver=None)
    for _ in range(2):
        tracker.on_request(active_requests=None, litserver=None)
    assert [record.message for record in caplog.records] == [
        "Active requests: 3",
        "RequestTracker has nothing to tell: pass LitServer(…, track_requests=True).",
    ]
