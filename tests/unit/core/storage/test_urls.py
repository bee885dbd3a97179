"""From URLs to storages; and the errors of services that nobody needs to reach."""

import subprocess
import sys
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError, StorageError, UnsupportedError
from leyden.core.storage import is_url, open_storage, split_url
from leyden.core.storage.local import LocalStorage

CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_")


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(CLOUD_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # No machine of a cloud, wherever this test runs: the metadata service is asked through a proxy that is not there.
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_path_is_a_local_storage(tmp_path: Path) -> None:
    for root in (tmp_path, str(tmp_path), tmp_path.as_uri(), f"FILE://{tmp_path}"):
        storage = open_storage(root)
        assert isinstance(storage, LocalStorage)
        assert storage.url == tmp_path.as_uri()


def test_the_url_of_a_storage_opens_it_again(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "a b%20#ü")
    storage.write("key", b"x")
    assert open_storage(storage.url).read("key") == b"x"


def test_memory_of_one_name_is_shared_and_of_two_is_not() -> None:
    open_storage("memory://shared-one/a").write("key", b"x")
    assert open_storage("memory://shared-one").read("a/key") == b"x"
    assert not open_storage("memory://shared-two/a").exists("key")


@pytest.mark.parametrize(("url", "hint"), [("s4://bucket", "Did you mean 's3'"), ("ftp://host/x", "'https'")])
def test_an_unknown_scheme_names_the_known_ones(url: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        open_storage(url)


def test_a_relative_file_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="absolute path"):
        open_storage("file://relative/path")


@pytest.mark.parametrize("url", ["/tmp/x", "memory://x"])
def test_options_without_effect_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="have no effect"):
        open_storage(url, {"endpoint_url": "http://x"})


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="endpont_url"):
        open_storage("s3://bucket", {"endpont_url": "http://x"})


def test_an_http_server_cannot_list() -> None:
    with pytest.raises(UnsupportedError, match="cannot list"):
        open_storage("http://127.0.0.1:1/x").list()


@pytest.mark.usefixtures("_no_credentials")
@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("s3://bucket/x", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        ("gs://bucket/x", ("GOOGLE_APPLICATION_CREDENTIALS",)),
        ("az://container/x", ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY")),
    ],
)
def test_missing_credentials_are_one_error_that_names_the_variables(url: str, variables: tuple[str, ...]) -> None:
    with pytest.raises(StorageError, match="no credentials were found") as caught:
        open_storage(url).read("key")
    assert all(variable in str(caught.value) for variable in variables)
    assert "Debug" not in str(caught.value)


def test_an_url_is_told_from_a_path() -> None:
    assert [is_url(text) for text in ("s3://b", "file:///x", "/a/b", "a://b", "C:\\x", "x", Path("s3:/b"))] == [True, True, *[False] * 5]


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket/a/b.ckpt", ("s3://bucket/a", "b.ckpt")),
        ("s3://bucket/b.ckpt", ("s3://bucket", "b.ckpt")),
        ("/tmp/b.ckpt", ("/tmp", "b.ckpt")),
        ("/b.ckpt", ("/", "b.ckpt")),
        ("b.ckpt", (".", "b.ckpt")),
    ],
)
def test_the_url_of_an_object_splits_into_root_and_key(url: str, parts: tuple[str, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/", "", "/"])
def test_a_url_without_a_name_does_not_split(url: str) -> None:
    with pytest.raises(ConfigError, match="names no object"):
        split_url(url)


def test_local_storage_does_not_load_the_client_of_services() -> None:
    program = "import sys; from leyden.core.storage import open_storage; open_storage('/tmp'); sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
