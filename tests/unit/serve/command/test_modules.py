"""What a user names on the command line, and its import."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError, NotFoundError
from leyden.serve.command.modules import Target, module_of
from tests.support.user_files import forgetting, write


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with forgetting():
        yield


def load(folder: Path, name: str) -> object:
    return Target.parse(str(folder / name)).load()


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("server.py", "server.py", ""),
        ("server.py:api", "server.py", "api"),
        ("models.server", "models.server", ""),
        ("models.server:make.it", "models.server", "make.it"),
        ("./a:b/server.py", "./a", "b/server.py"),  # unless it is there: see below
    ],
)
def test_a_name_may_follow_the_file(text: str, place: str, name: str) -> None:
    assert Target.parse(text) == (place, name)


def test_a_file_with_a_colon_in_its_path_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a:b", server="x = 1")
    assert Target.parse(str(tmp_path / "a:b/server.py")).name == ""


def test_a_file_is_imported_by_its_name_and_its_folder_comes_first(tmp_path: Path) -> None:
    write(tmp_path, user_server="import user_model\nx = user_model.x", user_model="x = 3")
    module = load(tmp_path, "user_server.py")
    assert (module.x, module.__name__, sys.path[0]) == (3, "user_server", str(tmp_path))
    assert load(tmp_path, "user_server.py") is module


def test_the_main_block_does_not_run(tmp_path: Path) -> None:
    write(tmp_path, user_main='if __name__ == "__main__":\n    raise AssertionError\n')
    load(tmp_path, "user_main.py")


def test_a_file_of_a_package_is_imported_as_a_part_of_it(tmp_path: Path) -> None:
    empty = {"user_pack/__init__": "", "user_pack/inner/__init__": ""}
    write(tmp_path, **empty, **{"user_pack/inner/server": "from ..weights import x", "user_pack/weights": "x = 4"})
    module = load(tmp_path, "user_pack/inner/server.py")
    assert (module.x, module.__name__) == (4, "user_pack.inner.server")
    assert module_of(tmp_path / "user_pack/__init__.py") == (tmp_path, "user_pack")


def test_a_module_is_found_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"user_models/__init__": "", "user_models/server": "x = 5"})
    monkeypatch.chdir(tmp_path)
    assert Target.parse("user_models.server:x").load().x == 5


def test_a_dash_in_a_name_is_no_hindrance(tmp_path: Path) -> None:
    write(tmp_path, **{"user-server": "x = 1"})
    assert load(tmp_path, "user-server.py").__name__ == "user-server"


@pytest.mark.parametrize("name", ["user_servr.py", "user_servr", "user_servr:api"])
def test_what_is_not_there_names_the_closest_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, user_server="")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=r"Did you mean 'user_server.py'\?"):
        Target.parse(name).load()


@pytest.mark.parametrize("name", ["a..b", "no_such_package.server", "json.no_such"])
def test_a_module_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(NotFoundError, match=f"no file and no module '{name}'"):
        Target.parse(name).load()


@pytest.mark.parametrize(("name", "words"), [("", "is a folder"), ("user.v2.py", "call it something like"), ("__main__.py", "call it")])
def test_what_cannot_be_imported_by_name_is_refused(name: str, words: str, tmp_path: Path) -> None:
    if name:
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, name)


def test_a_file_that_hides_a_module_is_refused(tmp_path: Path) -> None:
    write(tmp_path, json="x = 1")
    with pytest.raises(ConfigError, match=r"json.py has the name of a module that is imported already \(json, .*rename the file"):
        load(tmp_path, "json.py")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1\nx = no_such_name", "user_bad.py, line 2: NameError: name 'no_such_name' is not defined"),
        ("def f(:\n", "user_bad.py, line 1: SyntaxError: "),
        (
            "import json\nimport no_such_package_of_mine",
            "user_bad.py, line 2: ModuleNotFoundError: No module named 'no_such_package_of_mine'",
        ),
        ("import json\n\njson.loads('{')", "user_bad.py, line 3: JSONDecodeError: Expecting"),
        ("import user_helper", "user_helper.py, line 1: ZeroDivisionError"),
        ("raise SystemExit('bye')", "user_bad.py, line 1: it ends the program while it is imported (SystemExit: bye)"),
        ("from leyden.serve import LitAPI\nLitAPI(max_batch_size=0)", "user_bad.py, line 2: max_batch_size must be greater than 0"),
    ],
)
def test_what_the_file_raises_is_told_with_its_line(source: str, told: str, tmp_path: Path) -> None:
    write(tmp_path, user_bad=source, user_helper="1 / 0")
    with pytest.raises(ConfigError) as found:
        load(tmp_path, "user_bad.py")
    assert str(found.value).startswith(told)
    assert "\n" not in str(found.value)


def test_a_package_that_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"user_broken/__init__": "import no_such_package_of_mine", "user_broken/server": ""})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="No module named 'no_such_package_of_mine'"):
        Target.parse("user_broken.server").load()
