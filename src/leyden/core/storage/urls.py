"""From a URL or path to its `Storage`."""

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

from leyden.core.errors import ConfigError, closest, listed
from leyden.core.storage.local import LocalStorage
from leyden.core.storage.storage import Storage

SCHEMES = ("file", "s3", "gs", "az", "http", "https", "memory")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # two characters or more: `C:\` begins a path


def open_storage(url: str | os.PathLike[str], options: Mapping[str, object] | None = None) -> Storage:
    """Return the storage at a URL or path; nothing is touched before the first call.

    Args:
        url: The root. `memory://name` is shared by everyone in this process who opens the same name.
        options: Credentials and endpoint where the environment's are not meant: obstore's names or boto3's, such as
            `endpoint_url`, `aws_access_key_id`, `aws_secret_access_key`, `region_name`, `skip_signature`.

    Raises:
        ConfigError: The scheme or an option is not known.
        StorageError: The place cannot be used with what is configured.

    Example:
        >>> storage = open_storage("memory://example")
        >>> storage.write("greeting.txt", b"hello")
        >>> storage.read_range("greeting.txt", start=1, length=4)
        b'ello'
    """
    text = os.fspath(url)
    match = _URL.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("file", text)
    if scheme not in SCHEMES:
        raise ConfigError(
            f"url={text!r}: the scheme {scheme!r} is not known.{closest(scheme, SCHEMES)} Use a path or one of {listed(SCHEMES)}."
        )
    if scheme in {"file", "memory"} and options:
        raise ConfigError(f"options={sorted(options)} have no effect on {text!r}: remove them, or give the URL of a service.")
    if scheme == "file":
        return LocalStorage(_path_of(text, rest) if match else rest)
    from leyden.core.storage.remote import RemoteStorage  # a native library of 15 MB, for those who open such a URL

    return RemoteStorage(text, scheme, rest, options or {})


def _path_of(url: str, rest: str) -> str:
    if not rest.startswith("/"):
        raise ConfigError(f"url={url!r} is not accepted: after file:// comes an absolute path, such as file:///tmp/data.")
    return unquote(rest)


def local_path(url: str | os.PathLike[str]) -> str | None:
    """Return the path of a local place, given as a path or as `file://…`; `None` of a service.

    Example:
        >>> local_path("file:///tmp/a%20b"), local_path("/tmp/a"), local_path("s3://bucket/a")
        ('/tmp/a b', '/tmp/a', None)
    """
    text = os.fspath(url)
    match = _URL.fullmatch(text)
    if match is None:
        return text
    return _path_of(text, match[2]) if match[1].lower() == "file" else None


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether this is a URL with a scheme, and not a local path.

    Example:
        >>> is_url("s3://bucket/key"), is_url("/tmp/key")
        (True, False)
    """
    return isinstance(path, str) and _URL.fullmatch(path) is not None


def split_url(url: str) -> tuple[str, str]:
    """Split the URL or path of one object into a storage's root and the object's key.

    Raises:
        ConfigError: There is no name after the last `/`.

    Example:
        >>> split_url("s3://bucket/runs/last.ckpt")
        ('s3://bucket/runs', 'last.ckpt')
    """
    root, slash, name = url.rpartition("/")
    if not name or root.endswith(":/"):
        raise ConfigError(f"{url!r} names no object: give the whole name, such as 's3://bucket/folder/name'.")
    return root or slash or ".", name
