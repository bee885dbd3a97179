"""What clients refuse before anything is sent: URLs, options, payloads, headers; and what they say where httpx is missing."""

import importlib
import io
import sys
from typing import Any

import httpx
import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError, StateError
from leyden.serve.client import AsyncClient, Client
from tests.support.asking import URL


@pytest.mark.parametrize("kind", [Client, AsyncClient])
class TestWhatIsRefused:
    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "", None, 8000, "http://x/?a=1", "unix:x.sock"])
    def test_urls(self, kind: Any, url: Any) -> None:
        with pytest.raises(ConfigError, match="it takes the URL of a server"):
            kind(url)

    @pytest.mark.parametrize(
        "options",
        [
            {"timeout": 0},
            {"timeout": "1"},
            {"retries": -1},
            {"retries": 1.5},
            {"idempotent": 1},
            {"api_key": "a b"},
            {"api_key": "a\nb"},
            {"api_key": 5},
            {"verify": 5},
            {"verify": "no such file.pem"},
            {"http": object()},
        ],
    )
    def test_options(self, kind: Any, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"it takes|holds no certificates"):
            kind(URL, **options)

    def test_two_ways_to_say_one_thing(self, kind: Any) -> None:
        http = httpx.Client() if kind is Client else httpx.AsyncClient()
        for url, options in (("unix:/x", {}), (URL, {"verify": False})):
            with pytest.raises(ConfigError, match="are both given"):
                kind(url, http=http, **options)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"payload": object()}, "cannot be written as JSON"),
            ({"payload": 1, "path": "predict"}, "path must start with '/'"),
            ({"payload": 1, "form": {}}, "both given"),
            ({"payload": 1, "timeout": -5}, "seconds > 0"),
            ({"payload": 1, "headers": {"x": 1}}, "a dict of names and texts"),
            ({"payload": 1, "headers": {"x": "é"}}, "printable ASCII"),
            ({"payload": 1, "headers": {"x": "a\r\nb: c"}}, "printable ASCII"),
            ({"payload": 1, "path": "/a\nb"}, "Quote what is special"),
            ({"form": [1]}, "it takes a dict"),
            ({"form": {"a": b"x"}}, "text or numbers"),
            ({"files": {"a": "cat.png"}}, r"open\(path, 'rb'\)"),
            ({"files": {"a": io.StringIO("x")}}, "open as text"),
        ],
    )
    def test_arguments_before_anything_is_sent(self, kind: Any, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            kind(URL).stream(**arguments)


def test_headers_that_are_no_headers() -> None:
    with pytest.raises(ConfigError, match="cannot be sent"):
        Client("http://127.0.0.1:9", retries=0, http=httpx.Client(transport=httpx.MockTransport(_refuse))).predict(1)


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.LocalProtocolError("Illegal header value")


def test_a_payload_that_is_no_json_is_a_type_error_too() -> None:
    with pytest.raises(ConfigTypeError):
        Client(URL).predict({1, object()})


def test_without_httpx_the_error_holds_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "leyden.serve.client")
    with pytest.raises(MissingDependencyError, match=r'leyden\.serve\.Client needs .* pip install "leyden\[serve\]"'):
        importlib.import_module("leyden.serve.client")


def test_a_client_that_is_closed() -> None:
    with Client(URL) as client:
        pass
    with pytest.raises(StateError, match="This client is closed"):
        client.predict(1)
