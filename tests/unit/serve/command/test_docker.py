"""The Dockerfile, read as Docker reads it."""

import json
import re
from pathlib import Path

import pytest

from leyden import __version__
from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.serve.command.docker import CPU_WHEELS, Made, dockerize

WORDS = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}


def read(folder: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, without comments and with lines that go on put together."""
    text = re.sub(r"^#.*\n", "", (folder / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def of(folder: Path, word: str) -> str:
    """Return the one instruction that begins with a word."""
    (found,) = [rest for name, rest in read(folder) if name == word]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/server.py").write_text("raise AssertionError('it is not imported')")
    return tmp_path


@pytest.mark.parametrize("gpu", [False, True])
def test_it_runs_leyden_serve_as_nobody_special_and_says_whether_it_is_well(gpu: bool, folder: Path) -> None:
    (folder / "requirements.txt").write_text("scikit-learn\n# leyden is ours\n")
    made = dockerize("models/server.py:api", folder, port=9000, gpu=gpu)
    assert made.warnings == []
    assert {word for word, _ in read(folder)} <= WORDS
    assert json.loads(of(folder, "CMD")) == [
        "leyden", "serve", "models/server.py:api", "--host", "0.0.0.0", "--port", "9000", "--no-generate-client-file",
    ]  # fmt: skip
    assert (of(folder, "USER"), of(folder, "EXPOSE"), of(folder, "STOPSIGNAL")) == ("app", "9000", "SIGTERM")
    order = [word for word, _ in read(folder)]
    assert order.index("USER") < order.index("CMD")
    assert len(order) - order[::-1].index("RUN") <= order.index("USER"), "what is installed is root's"
    probe = of(folder, "HEALTHCHECK").partition(" CMD ")[2]
    python, option, code = json.loads(probe)
    assert (python, option) == ("python", "-c")
    assert ":9000/health/ready" in code
    compile(code, "probe", "exec")
    assert of(folder, "FROM").startswith("nvidia/cuda:" if gpu else "python:3.12")
    install = [rest for word, rest in read(folder) if word == "RUN"][-1]
    assert install.endswith(f'-r requirements.txt "leyden[serve]=={__version__}"')
    assert (CPU_WHEELS in install) is not gpu
    assert ("--gpus all" in made.lines()[-1]) is gpu


def test_the_commands_options_are_ones_that_leyden_knows(folder: Path) -> None:
    from leyden.cli.main import build_parser

    dockerize("models/server.py", folder)
    args = build_parser(["serve"]).parse_args(json.loads(of(folder, "CMD"))[1:])
    assert (args.file, args.port, args.host, args.generate_client_file) == ("models/server.py", 8000, "0.0.0.0", False)


@pytest.mark.parametrize(
    "line", ["leyden[serve]>=0.1", "  Leyden", "leyden @ git+https://example.com/leyden", "./dist/leyden-0.1.0-py3-none-any.whl"]
)
def test_requirements_may_name_leyden_themselves(line: str, folder: Path) -> None:
    (folder / "requirements.txt").write_text(f"numpy\n{line}\n")
    dockerize("models/server.py", folder)
    assert [rest for word, rest in read(folder) if word == "RUN"][-1].endswith("-r requirements.txt")


def test_missing_requirements_are_told(folder: Path) -> None:
    made = dockerize("models/server.py", folder)
    assert len(made.warnings) == 1
    assert "requirements.txt" in made.warnings[0]
    assert not [rest for word, rest in read(folder) if word == "COPY" and "requirements" in rest]


def test_nothing_is_overwritten_unless_told(folder: Path) -> None:
    (folder / ".dockerignore").write_text("mine")
    with pytest.raises(ConflictError, match=r"\.dockerignore exists already.*--force"):
        dockerize("models/server.py", folder)
    assert not (folder / "Dockerfile").exists()
    assert (folder / ".dockerignore").read_text() == "mine"
    dockerize("models/server.py", folder, force=True)
    assert ".git" in (folder / ".dockerignore").read_text().splitlines()


def test_the_file_is_named_as_it_lies_in_the_image(folder: Path) -> None:
    dockerize(str(folder / "models/server.py"), folder)
    assert json.loads(of(folder, "CMD"))[2] == "models/server.py"


@pytest.mark.parametrize(
    ("text", "port", "error", "words"),
    [
        ("models/servr.py", 8000, NotFoundError, "Did you mean 'models/server.py'"),
        ("models", 8000, ConfigError, "is a folder"),
        ("models/server.py", 80, ConfigError, "port must be a value from 1024"),
        ("models/server.py", 0, ConfigError, "no port that can be published"),
    ],
)
def test_mistakes_are_told(text: str, port: int, error: type[Exception], words: str, folder: Path) -> None:
    with pytest.raises(error, match=words):
        dockerize(text, folder, port=port)


def test_a_file_elsewhere_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "server.py"
    other.write_text("")
    with pytest.raises(ConfigError, match="lies outside"):
        dockerize(str(other), folder)


def test_a_module_is_served_by_its_name(folder: Path) -> None:
    made: Made = dockerize("models.server:api", folder)
    assert json.loads(of(folder, "CMD"))[2] == "models.server:api"
    assert made.image == "models-server"


HIDDEN = "if __name__ == '__main__':\n    ls.LitServer(Api(max_batch_size=4)).run()\n"


@pytest.mark.parametrize(
    ("source", "is_told"),
    [
        (HIDDEN, True),
        ("def main():\n    LitServer(Api()).run()\n", True),
        ("server = ls.LitServer(Api())\n" + HIDDEN, False),
        ("def build() -> 'ls.LitServer':\n    return ls.LitServer(Api())\n", False),
        ("api = Api()\n", False),
        ("no Python", False),
    ],
)
def test_a_server_that_the_image_would_not_run_is_told(source: str, is_told: bool, folder: Path) -> None:
    (folder / "requirements.txt").write_text("")
    (folder / "server.py").write_text(source)
    told = dockerize("server.py", folder).warnings
    assert [warning.startswith("the API is served without what server.py gives to LitServer") for warning in told] == [True] * is_told
