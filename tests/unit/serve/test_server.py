"""`LitServer`: every argument that is not accepted is told when the server is made, or run, with the words that are documented."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.serve import LitServer, OpenAISpec
from leyden.serve.api import LitAPI
from leyden.serve.loops import ContinuousBatchingLoop


class Plain(LitAPI):
    def predict(self, x: Any) -> Any:
        return x


class Tokens(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield x


def made(apis: Any = None, **options: Any) -> LitServer:
    return LitServer(Plain() if apis is None else apis, **{"accelerator": "cpu", **options})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"accelerator": "gpo"}, r"accelerator='gpo'"),
        ({"accelerator": "cuda", "devices": 900}, "cuda"),
        ({"devices": 4}, r"workers_per_device=4"),
        ({"devices": "some"}, "devices="),
        ({"workers_per_device": 0}, r"workers_per_device=0 is not accepted: it takes whole numbers ≥ 1"),
        ({"workers_per_device": [1, 2]}, r"workers_per_device has 2 numbers for 1 APIs"),
        ({"workers_per_device": {"/predit": 2}}, r"workers_per_device names the path '/predit', which no API has.*Did you mean '/predict'"),
        ({"timeout": 0}, r"timeout=0 is not accepted: it takes seconds > 0, or False for none"),
        ({"timeout": "30"}, "timeout='30' is not accepted"),
        ({"timeout": True}, "timeout=True is not accepted"),
        ({"healthcheck_path": "health"}, r"^healthcheck_path must start with '/', and is 'health'"),
        ({"info_path": "info"}, r"^info_path must start with '/'"),
        ({"shutdown_path": "stop", "enable_shutdown_api": True}, r"^shutdown_path must start with '/'"),
        ({"model_metadata": {"a": object()}}, r"^model_metadata must be JSON serializable\."),
        ({"model_metadata": {"a": math.inf}, "max_payload_size": "much"}, "max_payload_size='much' is not accepted"),
        ({"max_payload_size": -5}, "max_payload_size=-5 is not accepted"),
        ({"callbacks": ["none"]}, "callbacks"),
        ({"callbacks": 3}, r"callbacks=3 is not accepted"),
        ({"middlewares": [3]}, r"middlewares=3 is not accepted: it takes classes, or pairs"),
        ({"middlewares": [(dict, 3)]}, "middlewares="),
        ({"deadline": -2}, "deadline=-2 is not accepted"),
        ({"kill_after": 0}, "kill_after=0 is not accepted"),
        ({"max_queue_size": 0}, r"max_queue_size=0 is not accepted: it takes a whole number ≥ 1, or 'auto'"),
        ({"max_queue_size": "all"}, "max_queue_size='all'"),
        ({"max_inflight_bytes": "lots"}, "max_inflight_bytes='lots'"),
        ({"drain_timeout": -1}, "drain_timeout"),
        ({"drain_delay": "1"}, "drain_delay"),
        ({"header_timeout": 0}, "header_timeout"),
        ({"body_timeout": math.nan}, "body_timeout"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"compression": "brotli"}, "compression"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made(**options)


@pytest.mark.parametrize(
    ("apis", "options", "told"),
    [
        ([], {}, r"lit_api=\[\] is empty"),
        ("api", {}, "it takes a LitAPI"),
        ([Plain(), 3], {}, "it takes a LitAPI"),
        ([Plain(), Plain()], {}, r"^api_path '/predict' is already in use by API 0"),
        (Plain(api_path="/health"), {}, r"^api_path '/health' is already in use by healthcheck_path"),
        (Plain(api_path="/alive"), {"healthcheck_path": "/alive"}, r"^api_path '/alive' is already in use by healthcheck_path"),
        (Plain(api_path="/metrics"), {}, r"^api_path '/metrics' is already in use by the metrics"),
        (Plain(api_path="/"), {}, r"^api_path '/' is already in use by"),
        (Plain(api_path="/docs"), {}, r"^api_path '/docs' is already in use by the documentation"),
        (Plain(api_path="/shutdown"), {"enable_shutdown_api": True}, r"^api_path '/shutdown' is already in use by shutdown_path"),
        ([Tokens(spec=OpenAISpec()), Plain(api_path="/v1/models")], {}, r"^api_path '/v1/models' is already in use"),
        (Plain(batch_timeout=2), {"timeout": 1}, r"^batch_timeout must be less than request_timeout"),
        (Plain(stream=True), {}, r"stream=True needs a generator"),
        (Plain(spec=OpenAISpec()), {}, "OpenAISpec needs a generator"),
        (Plain(spec=OpenAISpec), {}, "OpenAISpec is a class"),
        (Plain(loop=ContinuousBatchingLoop()), {}, "add_request|has_finished|step"),
    ],
)
def test_apis_that_do_not_go_together_are_refused(apis: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made(apis, **options)


def test_a_class_and_the_same_object_twice_are_told() -> None:
    with pytest.raises(StateError, match=r"Plain is a class: pass an object of it, Plain\(\)"):
        made(Plain)
    api = Plain()
    with pytest.raises(ConfigError, match="holds the same object twice"):
        made([api, api])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"port": 80}, r"^port must be a value from 1024 to 65535 but got 80"),
        ({"port": "http"}, r"^port must be a value from 1024 to 65535 but got"),
        ({"host": "example.org"}, r"^host must be '0\.0\.0\.0', '127\.0\.0\.1', or '::' but got 'example.org'"),
        ({"num_api_servers": 0}, r"^num_api_servers must be greater than 0 but got 0"),
        ({"api_server_worker_type": "fiber"}, "api_server_worker_type"),
        ({"acces_log": False}, r"run\(acces_log=…\) is not accepted: neither run nor uvicorn has it.*Did you mean 'access_log'"),
        ({"workers": 3}, r"run\(workers=…\) is not accepted"),
        ({"http": "h11"}, r"run\(http=…\) is not accepted"),
        ({"log_level": "loud"}, r"level='loud' is not accepted: it takes .*'info'"),
    ],
)
def test_what_run_does_not_take_is_told_before_anything_starts(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made().run(**{"port": 0, "generate_client_file": False, **options})


def test_old_arguments_are_written_onto_the_api_and_checked_as_its_own() -> None:
    api = Plain()
    with pytest.warns(DeprecationWarning, match=r"LitServer\(max_batch_size=…\) is deprecated: pass it to LitAPI\(max_batch_size=…\)"):
        made(api, max_batch_size=4)
    assert api.max_batch_size == 4
    for options in ({"max_batch_size": 0}, {"batch_timeout": -1}, {"api_path": "x"}, {"loop": "x"}):
        with pytest.warns(DeprecationWarning, match="pass it to LitAPI"), pytest.raises(ConfigError):
            made(**options)
    with (
        pytest.warns(DeprecationWarning, match="pass it to LitAPI"),
        pytest.raises(ConfigError, match="does not say which of 2 APIs it is for"),
    ):
        made([Plain(), Plain(api_path="/b")], max_batch_size=4)


def test_what_is_documented_is_taken() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server = made(
            [Plain(), Plain(api_path="/b")],
            accelerator=None if made().devices == ["cpu"] else "CPU",
            devices="auto",
            workers_per_device={"/b": 2},
            timeout=False,
            max_payload_size="10MB",
            model_metadata={"name": "m"},
            kill_after=5,
            deadline=None,
        )
    assert server.config.max_payload_bytes == 10 * 2**20
    assert [api.num_workers for api in server.config.apis] == [1, 2]
    assert (server.config.apis[0].timeout, server.config.kill_after) == (math.inf, 5.0)
    assert (server.active_requests, server.inference_workers) == (None, [])
    with pytest.raises(TypeError):
        made(drain_time=3)


def test_a_server_that_is_started_twice_and_one_that_is_not_started() -> None:
    with pytest.raises(StateError, match="the workers were not started"):
        made().wait_until_ready()
    with pytest.raises(ConfigTypeError):
        made(callbacks=object())
