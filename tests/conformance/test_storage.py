"""Every storage passes the suite: a directory, memory, and S3 as a real server answers it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.core.storage import Storage, open_storage
from tests.conformance.storage_suite import StorageSuite
from tests.support.s3_server import S3Server, s3_server

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="moto[server] is not installed")
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


class TestLocalStorage(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(tmp_path / "root")


class TestLocalStorageByUrl(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage((tmp_path / "a root").as_uri())


class TestMemoryStorage(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(f"memory://{tmp_path.name}-{next(_numbers)}/some/prefix")


class TestS3Storage(StorageSuite):
    @pytest.fixture
    def storage(self, server: S3Server) -> Storage:
        url = server.make_bucket(f"bucket-{next(_numbers)}")
        return open_storage(f"{url}/some/prefix", server.options)
