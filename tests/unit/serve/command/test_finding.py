"""Which server a user's file holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, LeydenError, NotFoundError, listed
from leyden.serve.command.finding import Found, find
from leyden.serve.command.modules import Target
from tests.support.user_files import forgetting, write

API = """
import leyden.serve as ls

class Square(ls.LitAPI):
    def predict(self, x):
        return x**2
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with forgetting():
        yield


def found_in(folder: Path, source: str, name: str = "", **replacements: Any) -> Found:
    write(folder, user_server=API + source)
    return find(Target(str(folder / "user_server.py"), name), {"accelerator": "cpu", **replacements})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("server = ls.LitServer(Square())", "server"),
        ("server = ls.LitServer(Square())\nthe_same = server\n_hidden = ls.LitServer(Square())", "server"),
        ("def make() -> ls.LitServer:\n    return ls.LitServer(Square())", "make"),
        ("def make() -> 'ls.LitServer':\n    return ls.LitServer(Square())\ndef other():\n    return 1", "make"),
        ("api = Square()", "api"),
        ("", "Square"),
        ("class Base(ls.LitAPI): ...\nclass Better(Square): ...\ndel Base", "Better"),
        ("class Other(ls.LitAPI): ...\nserver = ls.LitServer(Square())", "server"),
    ],
)
def test_the_most_telling_thing_is_served(source: str, name: str, tmp_path: Path) -> None:
    found = found_in(tmp_path, source)
    assert (found.name, found.note) == (name, "")
    assert [api.path for api in found.server.config.apis] == ["/predict"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a = ls.LitServer(Square())\nb = ls.LitServer(Square())", ["a", "b"]),
        ("a = Square()\nb = Square()", ["a", "b"]),
        ("class A(ls.LitAPI): ...\nclass B(A): ...\nclass C(A): ...", ["Square", "B", "C"]),
    ],
)
def test_several_are_an_error_that_names_them(source: str, names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds several to serve") as error:
        found_in(tmp_path, source)
    assert f"holds several to serve: {listed(names)}. Name one: leyden serve" in str(error.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a = ls.LitServer(Square())\nb = ls.LitServer(Square())", "b"),
        ("def build():\n    return ls.LitServer(Square())", "build"),
        ("def build():\n    return Square()", "build"),
        ("apis = [Square(), Square(api_path='/b')]", "apis"),
        ("class Box:\n    server = ls.LitServer(Square())", "Box.server"),
        ("import functools\nbuild = functools.partial(ls.LitServer, Square())", "build"),
        ("", "Square"),
    ],
)
def test_a_name_takes_anything_that_can_be_served(source: str, name: str, tmp_path: Path) -> None:
    assert found_in(tmp_path, source, name).name == name


@pytest.mark.parametrize(
    ("source", "name", "error", "words"),
    [
        ("server = ls.LitServer(Square())", "servr", NotFoundError, "Did you mean 'server'"),
        ("if __name__ == '__main__':\n    server = 1", "server", NotFoundError, "it does not run"),
        ("x = 3", "x", ConfigTypeError, "x gives a int"),
        ("x = []", "x", ConfigTypeError, "x gives a list"),
        ("app = ls.LitServer(Square()).app", "app", ConfigTypeError, "is an app .FastAPI.: name the LitServer"),
        ("def make(size): ...", "make", ConfigError, "missing a required argument: 'size'"),
        ("async def make(): ...", "make", ConfigTypeError, "gives a coroutine"),
        ("def make():\n    return [1][2]", "make", ConfigError, r"user_server.py, line \d+: IndexError"),
        ("def make():\n    ls.LitServer(Square()).run()", "make", ConfigError, "a server was started while the script was imported"),
        ("class Sized(ls.LitAPI):\n    def __init__(self, size): ...", "Sized", ConfigError, "missing a required argument: 'size'"),
    ],
)
def test_what_cannot_be_served_is_told(source: str, name: str, error: type[LeydenError], words: str, tmp_path: Path) -> None:
    with pytest.raises(LeydenError, match=words) as found:
        found_in(tmp_path, source, name)
    assert isinstance(found.value, error | ConfigError)
    assert "\n" not in str(found.value)


def test_a_file_without_anything_says_what_to_write(tmp_path: Path) -> None:
    write(tmp_path, user_empty="import leyden.serve as ls\nfrom leyden.serve.test_examples import SimpleLitAPI\nx = 1\n")
    with pytest.raises(ConfigError, match="holds nothing to serve") as error:
        find(Target(str(tmp_path / "user_empty.py")))
    assert "server = LitServer(MyAPI()) at its top level" in str(error.value)


def test_a_server_below_the_guard_is_missed_with_a_word(tmp_path: Path) -> None:
    found = found_in(tmp_path, "if __name__ == '__main__':\n    ls.LitServer(Square(max_batch_size=4)).run()")
    assert found.name == "Square"
    assert "Move server = LitServer" in found.note


def test_a_server_in_a_function_that_does_not_say_so_is_missed_with_a_word(tmp_path: Path) -> None:
    source = "def main():\n    ls.LitServer(Square(max_batch_size=4)).run()\nif __name__ == '__main__':\n    main()"
    found = found_in(tmp_path, source)
    assert found.name == "Square"
    assert "or in a function" in found.note
    assert found_in(tmp_path, "def build() -> ls.LitServer:\n    return ls.LitServer(Square())").note == ""


def test_a_server_that_starts_at_the_top_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"user_server.py, line 7: a server was started while the script was imported"):
        found_in(tmp_path, "ls.LitServer(Square()).run(port=0)")


def test_options_replace_arguments_before_they_are_looked_at(tmp_path: Path) -> None:
    source = "server = ls.LitServer(Square(), 'no-such-accelerator', workers_per_device=7, timeout=1, drain_timeout=2)"
    server = found_in(tmp_path, source, workers_per_device=2, timeout=False).server
    assert server.devices == ["cpu"]
    assert (server.config.apis[0].num_workers, server.config.apis[0].timeout, server.config.drain_timeout) == (2, float("inf"), 2)
    assert dict(server.replicas[0].specs[0].replacements) == {"accelerator": "cpu", "workers_per_device": 2, "timeout": False}


def test_routes_that_the_file_adds_are_kept(tmp_path: Path) -> None:
    source = "server = ls.LitServer(Square())\n@server.app.get('/extra')\ndef extra(): ..."
    paths = [getattr(route, "path", "") for route in found_in(tmp_path, source, timeout=5).server.app.router.routes]
    assert "/extra" in paths


def test_an_option_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--enable-shutdown-api"):
        found_in(tmp_path, "", shutdown_path="/stop")
    assert found_in(tmp_path, "", shutdown_path="/stop", enable_shutdown_api=True).server.config.shutdown_path == "/stop"
