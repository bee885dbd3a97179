"""Storage against real servers: S3 by environment and with faults, and a plain HTTP server."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from leyden.core.errors import CorruptDataError, NotFoundError, StorageError
from leyden.core.storage import open_storage
from tests.support.ports import free_port
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="moto[server] is not installed")
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=30)


def test_endpoint_and_credentials_come_from_the_environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    url = server.make_bucket("by-environment")
    open_storage(f"{url}/runs").write("a", b"x")
    assert [entry.key for entry in open_storage(url).list()] == ["runs/a"]


def test_an_absent_bucket_is_named(server: S3Server) -> None:
    storage = open_storage("s3://absent-bucket/x", server.options)
    for call in (lambda: storage.read("key"), lambda: storage.write("key", b"x"), lambda: list(storage.list())):
        with pytest.raises(NotFoundError, match=r"s3://absent-bucket.*no such bucket"):
            call()


def test_a_server_that_is_down_is_a_storage_error(server: S3Server) -> None:
    storage = open_storage("s3://bucket", {**server.options, "endpoint_url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(StorageError, match="s3://bucket/key") as caught:
        storage.read("key")
    assert "Debug" not in str(caught.value)


def test_a_plain_http_server_is_read(http_server: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"0123456789")
    storage = open_storage(f"{http_server}/data")
    assert storage.read("file") == b"0123456789"
    assert storage.size("file") == 10
    storage.download_file("file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    with pytest.raises(NotFoundError, match="absent"):
        storage.read("absent")
    with pytest.raises(StorageError):
        storage.write("file", b"x")


def test_a_server_that_ignores_ranges_never_gives_wrong_bytes(http_server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with pytest.raises((CorruptDataError, StorageError)):
        open_storage(http_server).read_range("file", 2, 3)
