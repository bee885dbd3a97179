"""The options of `leyden serve`, and what its commands do in this process; real servers are in tests/integration/serve."""

import inspect
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from leyden.cli.main import build_parser, main
from leyden.cli.serve_flags import RUN, SERVER, SWITCH, UVICORN, WITHOUT, Flag, given
from leyden.serve import LitServer
from tests.support.user_files import forgetting, write

SERVER_FILE = """
import leyden.serve as ls
from tests.support.serve_apis import FailsSetUp, Square

server = ls.LitServer(Square(), accelerator="cpu")
bad = ls.LitServer(FailsSetUp(), accelerator="cpu")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, user_server=SERVER_FILE)
    with forgetting():
        yield tmp_path


def parse(*words: str) -> Any:
    return build_parser(["serve"]).parse_args(["serve", *words])


def test_every_argument_has_an_option_or_a_reason() -> None:
    there = [*inspect.signature(LitServer.__init__).parameters, *inspect.signature(LitServer.run).parameters]
    named = {flag.name for flag in (*SERVER, *RUN)} | WITHOUT.keys() | {"self"}
    assert named == set(there), "leyden.cli.serve_flags has a table for each argument of LitServer and of run"
    assert {flag.name for flag in UVICORN} <= set(inspect.signature(uvicorn.Config).parameters)


@pytest.mark.parametrize("flag", [*SERVER, *RUN], ids=lambda flag: flag.name)
def test_an_option_shows_the_default_of_its_argument(flag: Flag) -> None:
    parameters = {**inspect.signature(LitServer.__init__).parameters, **inspect.signature(LitServer.run).parameters}
    default = parameters[flag.name].default
    shown = {
        "deadline": "off", "kill_after": "off", "restart_workers": "on", "num_api_servers": "one for four workers", "model_metadata": "",
        "max_payload_size": "100MB", "max_inflight_bytes": "1GB",
    }.get(flag.name)  # fmt: skip
    assert flag.default == (shown if shown is not None else {True: "on", False: "off"}[default] if flag.kind == SWITCH else str(default))


def test_only_what_is_given_replaces_something() -> None:
    assert given(parse("server.py"), SERVER, RUN, UVICORN) == {}
    args = parse(
        "--port", "0", "server.py:api", "--workers-per-device", '{"/a": 2}', "--devices", "0,1", "--timeout", "off", "--no-restart-workers",
        "--max-payload-size", "10MB", "--max-queue-size", "5", "--expose-errors", "--no-access-log",
    )  # fmt: skip
    assert given(args, SERVER) == {
        "workers_per_device": {"/a": 2}, "devices": [0, 1], "timeout": False, "restart_workers": False, "max_payload_size": "10MB",
        "max_queue_size": 5, "expose_errors": True,
    }  # fmt: skip
    assert given(args, RUN, UVICORN) == {"port": 0, "access_log": False}
    assert args.file == "server.py:api"


@pytest.mark.parametrize(("words", "command"), [(["a.py"], "run"), (["run", "a.py"], "run"), (["check", "a.py"], "check")])
def test_a_file_alone_is_run(words: list[str], command: str) -> None:
    assert parse(*words).serve_command == command


@pytest.mark.parametrize("words", [[], ["check"], ["a.py", "b.py"], ["a.py", "--port", "many"], ["a.py", "--prot", "8000"]])
def test_words_that_say_nothing_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *words])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["user_servr.py"], "there is no file and no module 'user_servr.py' here. Did you mean 'user_server.py'?"),
        (["user_server.py"], "user_server.py holds several to serve: 'server', 'bad'. Name one: leyden serve user_server.py:server"),
        (["user_server.py:severs"], "user_server.py has no 'severs'. Did you mean 'server'?"),
        (["user_server.py:server", "--timeout", "-3"], "user_server.py, line 5: timeout=-3.0 is not accepted"),
        (["user_server.py:server", "--port", "80"], "port must be a value from 1024 to 65535 but got 80"),
        (["user_server.py:server", "--host", "example.com"], "host must be '0.0.0.0'"),
        (["user_server.py:server", "--shutdown-path", "/stop"], "--shutdown-path has no effect"),
        (["user_server.py:server", "--compression", ""], "--compression is empty"),
        (["user_server.py:server", "--ssl-certfile", "no.pem", "--ssl-keyfile", "no.key"], "ssl_certfile='no.pem': there is no such file"),
        (["user_server.py:server", "--ssl-keyfile", "user_server.py"], "ssl_keyfile='user_server.py' has no effect without"),
        (
            ["user_server.py:server", "--ssl-certfile", "user_server.py"],
            "ssl_certfile='user_server.py' cannot be used",
        ),
        (["run", "no_folder/server.py", "--reload"], "there is no file and no module 'no_folder/server.py' here."),
        (["check", "user_server.py:server", "--input", "{"], "--input '{' is no JSON."),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def test_a_port_in_use_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "user_server.py:server", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: port {port} is in use")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_check_prints_a_table_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "check", "user_server.py:server", "--input", '{"input": 3}', "--workers-per-device", "2"]) == 0
    out, err = capsys.readouterr()
    assert [" ".join(line.split()) for line in out.splitlines()][:2] == [
        "path methods way stream batch body workers",
        "/predict POST hot no no JSON or a form 2",
    ]
    assert err == ""
    assert main(["serve", "check", "user_server.py:server", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["routes"][0]["path"] == "/predict"


def test_check_fails_with_one_line_and_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "check", "user_server.py:bad"]) == 1
    out, err = capsys.readouterr()
    assert err == "error: /predict failed: ValueError: no weights here\n"
    assert out.splitlines()[-1] == "/predict: not set up"
    assert main(["--traceback", "serve", "check", "user_server.py:bad"]) == 1
    assert 'raise ValueError("no weights here")' in capsys.readouterr().err


def test_check_says_what_it_passes_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from tests.support.serve_apis import Square\nclass Mine(Square): ...\nif __name__ == '__main__':\n    LitServer(Mine())"
    write(folder, user_guarded=text)
    assert main(["serve", "check", "user_guarded.py", "--accelerator", "cpu"]) == 0
    assert capsys.readouterr().err.startswith("warning: Mine is served without what user_guarded.py gives to LitServer below")


def test_dockerize_writes_and_warns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "dockerize", "user_server.py", "--port", "9000", "--gpu"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "wrote Dockerfile and .dockerignore"
    assert err.startswith("warning: there is no requirements.txt")
    assert "EXPOSE 9000" in (folder / "Dockerfile").read_text()
    assert main(["serve", "dockerize", "user_server.py"]) == 2
    assert main(["serve", "dockerize", "user_server.py", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base"].startswith("python:")
