"""`leyden data optimize`, `jobs`, `versions`, `merge` and `cache`, as one types them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.cli.main import main
from leyden.data import StreamingDataset, optimize
from leyden.data.read.folders import cache_folder
from tests.support.s3_server import S3Server, s3_server

MODULE = """
def length(path):
    return {"path": path, "bytes": len(open(path, "rb").read())}

def doubled(row):
    return {"x": 2 * row["x"]}

def word(text):
    return {"word": text}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepare_here.py").write_text(MODULE)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("x" * number)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"x": number}) for number in range(4)))
    (tmp_path / "words.txt.list").write_text("one\ntwo\n")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *command: str, status: int = 0) -> Any:
    assert main(["data", *command, "--json"]) == status
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_datasets_are_written_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = said(capsys, "optimize", "prepare_here:length", "--inputs", "*.txt", "--output-dir", "files", "--num-workers", "1")
    assert (report["num_rows"], report["version"]) == (3, 1)
    assert [sample["bytes"] for sample in StreamingDataset("files")[:]] == [0, 1, 2]
    doubled = ("optimize", "prepare_here:doubled", "--inputs", "rows.jsonl", "--output-dir", "rows", "--num-workers", "0")
    assert said(capsys, *doubled)["num_rows"] == 4
    more = said(capsys, *doubled, "--mode", "append")
    assert (more["version"], StreamingDataset("rows").num_rows) == (2, 8)
    said(capsys, "optimize", "prepare_here:word", "--inputs", "@words.txt.list", "--output-dir", "words", "--num-workers", "0")
    assert [sample["word"] for sample in StreamingDataset("words")[:]] == ["one", "two"]
    assert [each["state"] for each in said(capsys, "jobs", "rows")] == ["finished", "finished"]
    assert main(["data", "jobs", "none"]) == 0
    assert capsys.readouterr().err == "no jobs at none\n"
    listed = said(capsys, "versions", "rows")
    assert [(each["version"], each["operation"], each["num_rows"]) for each in listed] == [(1, "create", 4), (2, "append", 8)]
    assert said(capsys, "versions", "rows", "--rollback", "1")[-1]["num_rows"] == 4
    assert main(["data", "versions", "rows"]) == 0
    assert "rollback" in capsys.readouterr().out


def test_datasets_are_merged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        said(capsys, "optimize", "prepare_here:doubled", "--inputs", "rows.jsonl", "--output-dir", name, "--num-workers", "0")
    assert said(capsys, "merge", "a", "b", "--output-dir", "both")["num_rows"] == 8


@pytest.mark.parametrize(
    ("function", "inputs", "told"),
    [
        ("prepare_here", "*.txt", "MODULE:FUNCTION"),
        ("prepare_here:nothing", "*.txt", "nothing"),
        ("prepare_here:length", "*.jpg", "gives no inputs"),
        ("prepare_here:length", "@gone.list", "cannot be read"),
    ],
)
def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str], function: str, inputs: str, told: str) -> None:
    assert main(["data", "optimize", function, "--inputs", inputs, "--output-dir", "out"]) != 0
    assert told in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


def test_the_cache_is_shown_and_cleared(
    folder: Path, server: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYDEN_DATA_CACHE_DIR", str(folder / "cache"))
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    url = f"{server.make_bucket('cached')}/rows"
    options: Any = server.options
    from leyden.data import optimize

    optimize(dict, [{"x": 1}, {"x": 2}], url, num_workers=0, storage_options=options, verbose=False)
    assert [sample["x"] for sample in StreamingDataset(url, storage_options=options)[:]] == [1, 2]
    assert said(capsys, "cache", "path")["path"] == str(cache_folder())
    (held,) = said(capsys, "cache", "list", url)
    assert (held["blocks"], held["bytes"] > 0) == (1, True)
    assert said(capsys, "cache", "clear", "--older-than", "1h")["blocks"] == 0
    assert said(capsys, "cache", "clear", url)["blocks"] == 1
    assert said(capsys, "cache", "list") == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("optimize", "broken_here:f", "--inputs", "*.txt", "--output-dir", "o"), "importing broken_here raised ZeroDivisionError"),
        (("optimize", ":f", "--inputs", "*.txt", "--output-dir", "o"), "name a function as MODULE:FUNCTION"),
        (("optimize", "prepare_here:doubled", "--inputs", "bad.jsonl", "--output-dir", "o"), "line 2 of 'bad.jsonl' is no JSON"),
        (("optimize", "prepare_here:doubled", "--inputs", "binary.jsonl", "--output-dir", "o"), "is no text in UTF-8"),
        (("optimize", "prepare_here:length", "--inputs", "*.txt", "--output-dir", "0.txt"), "is a file, and a dataset is a folder"),
        (("convert", "words", "0.txt"), "is a file, and a dataset is a folder"),
        (("inspect", "words", "--html", "nowhere/page.html"), "cannot be written"),
        (("inspect", "words", "--rows", "-1"), "rows=-1 is not accepted"),
        (("cache", "list", "--older-than", "7d"), "--older-than 7d is for clear"),
    ],
    ids=range(9),
)
def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], told: str) -> None:
    (folder / "broken_here.py").write_text("1 / 0\n")
    (folder / "bad.jsonl").write_text('{"x": 1}\n{"x"\n')
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe")
    optimize(str, ["one", "two"], "words", num_workers=0)
    assert main(["data", *command]) in {1, 2}
    assert told in capsys.readouterr().err
