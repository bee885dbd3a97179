"""Manifests and versions: torn, edited and newer ones, races of committers, kills between the steps, servers that list nothing."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.storage import open_storage
from leyden.data import StreamingDataset, optimize
from leyden.data.errors import DatasetExistsError
from leyden.data.format import canonical
from leyden.data.format.hashing import xxh3_64
from leyden.data.format.manifest import Manifest
from leyden.data.format.versions import commit, list_versions, open_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 0, 10)
    return tmp_path


def write(folder: Path, start: int, stop: int, **options: Any) -> None:
    optimize(row, list(range(start, stop)), str(folder), num_workers=0, fsync=False, verbose=False, **options)


def row(number: int) -> dict[str, int]:
    return {"x": number}


def xs(folder: Path, **options: Any) -> list[int]:
    return [sample["x"] for sample in StreamingDataset(str(folder), **options)[:]]


def edited(folder: Path, change: dict[str, Any], *, signed: bool = True) -> None:
    """Change the newest manifest, with a check that is right again."""
    for path in (folder / "index.json", folder / "_leyden/manifest-00000001.json"):
        document = {**json.loads(path.read_bytes()), **change}
        if signed:
            document["check"] = f"{xxh3_64(canonical.dumps({**document, 'check': ''})):016x}"
        path.write_bytes(canonical.dumps(document))


def test_torn_and_edited_manifests_are_named(folder: Path) -> None:
    edited(folder, {"num_rows": 11}, signed=False)
    with pytest.raises(CorruptDataError, match="was edited"):
        StreamingDataset(str(folder))
    for path in (folder / "index.json", folder / "_leyden/manifest-00000001.json"):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptDataError, match=r"manifest-00000001\.json is damaged"):
        StreamingDataset(str(folder))


def test_a_newer_format_says_which_leyden_wrote_it(folder: Path) -> None:
    edited(folder, {"format_version": 2})
    with pytest.raises(ConfigError, match=r"written by a newer Leyden \(.*\): its format is 2.*pip install --upgrade"):
        StreamingDataset(str(folder))


def test_entries_that_are_not_known_are_kept(folder: Path) -> None:
    edited(folder, {"colour": "red"})
    manifest = open_manifest(open_storage(folder))
    assert manifest.extra == {"colour": "red"}
    assert Manifest.from_bytes(manifest.to_bytes(), "here").extra == {"colour": "red"}


@pytest.mark.parametrize("step", ["data.commit.before", "data.commit.between", "data.commit.after"])
def test_a_kill_at_any_step_leaves_the_old_version_or_the_new_one(folder: Path, step: str) -> None:
    with pytest.raises(InjectedError), armed(f"{step}=raise"):
        write(folder, 10, 15, mode="append")
    assert xs(folder) in (list(range(10)), list(range(15)))
    if step == "data.commit.before":
        write(folder, 10, 15, mode="append")
    assert xs(folder) == list(range(15))
    assert xs(folder, version=1) == list(range(10))


def test_a_stale_index_is_passed_over_and_mended_by_the_next_writer(folder: Path) -> None:
    old = (folder / "index.json").read_bytes()
    write(folder, 10, 15, mode="append")
    (folder / "index.json").write_bytes(old)
    assert xs(folder) == list(range(15))
    write(folder, 15, 20, mode="append")
    assert json.loads((folder / "index.json").read_bytes())["version"] == 3


def test_two_committers_both_land(folder: Path) -> None:
    storage = open_storage(folder)
    other = open_manifest(storage)

    def slow(newest: Manifest | None) -> Manifest:
        assert newest is not None
        if newest.version == 1:  # another one is faster, once
            commit(storage, lambda _: next_of(other, 2, "a"))
        return next_of(newest, newest.version + 1, "b")

    assert commit(storage, slow).version == 3
    assert [open_manifest(storage, version).operation for version in (1, 2, 3)] == ["create", "a", "b"]


def next_of(manifest: Manifest, version: int, operation: str) -> Manifest:
    return Manifest(version, manifest.schema, manifest.chunks, manifest.settings, operation, manifest.version)


def test_two_creators_are_one_too_many(folder: Path) -> None:
    with pytest.raises(DatasetExistsError, match="HINT"):
        write(folder, 0, 3)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP, which lists nothing that we could read."""
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        """Answer a range, which the standard library's server cannot."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range")
        start, stop = 0, len(data)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(data[start:stop])


def test_a_web_server_that_lists_nothing_gives_what_its_index_says(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = str(tmp_path_factory.mktemp("cache"))
    with web_server(folder) as url:
        dataset = StreamingDataset(url, cache)
        assert [sample["x"] for sample in dataset[:]] == list(range(10))
        assert [sample["x"] for sample in dataset] == list(range(10))
        with pytest.raises(NotFoundError):
            StreamingDataset(f"{url}/nothing", cache)


def test_versions_are_listed_in_order(folder: Path) -> None:
    write(folder, 10, 12, mode="append")
    assert [each.version for each in list_versions(open_storage(folder))] == [1, 2]
    with pytest.raises(NotFoundError, match="version 7"):
        StreamingDataset(str(folder), version=7)
