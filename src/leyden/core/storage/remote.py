"""`RemoteStorage`: S3, Google Cloud Storage, Azure, HTTP and memory, through obstore.

obstore finds credentials and endpoints in the usual variables and retries by itself; what is here is the naming of keys
and one translation of its errors, which says for missing credentials which variables to set. An object of this class
must not cross a `fork` (obstore has threads): open it after.
"""

import contextlib
import functools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import obstore
from obstore import exceptions, store

from leyden.core import settings
from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, LeydenError, NotFoundError, StorageError, UnsupportedError
from leyden.core.files import atomic_file
from leyden.core.storage.local import existing_file
from leyden.core.storage.storage import Entry, Storage, checked_key, checked_range, whole

_STREAM_BYTES = 8 * 2**20
_CLOSE_BYTES = 64 * 2**10  # between two ranges that are worth one request
_S3_COPY_BYTES = 5 * 2**30  # of one CopyObject request; more goes through this machine
_MESSAGE_CHARACTERS = 400

_HINTS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL where they apply), "
    "or AWS_SKIP_SIGNATURE=true for a public bucket.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file, or run `gcloud auth application-default login`.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY.",
}
# With one of these set, somebody has thought of credentials; without, obstore asks the cloud's metadata service, which
# outside of a cloud does not answer: then one short try instead of minutes of retries.
_CREDENTIAL_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_TOKEN"),
}
_METADATA_SERVICE = ("169.254.169.254", "metadata.google.internal", "Account must be specified")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_NO_RANGE = ("status code: 416", "Invalid range")
_BOTO3_NAMES = {"region_name": "region", "aws_region_name": "region"}
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")


@final
class RemoteStorage(Storage):
    """Objects of a service, or of this process's memory.

    Args:
        url: The URL as it was given.
        scheme: Its scheme, in lower case.
        rest: What follows `://`.
        options: obstore's configuration keys, or boto3's names for them.
    """

    def __init__(self, url: str, scheme: str, rest: str, options: Mapping[str, object]) -> None:
        self.url = url.rstrip("/")
        self._scheme = scheme
        self._prefix = ""  # only of memory; the others hand theirs to obstore
        if scheme == "memory":
            name, _, self._prefix = rest.strip("/").partition("/")
            self._store: Any = _memory_store(name)
            return
        with self._translated():
            self._store = _remote_store(self.url, scheme, options)

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        with self._translated(key) as name:
            return bytes(obstore.get(self._store, name).bytes())

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        checked_range(start, length)
        if length == 0:  # obstore refuses an empty range
            self.size(key)
            return b""
        with self._translated(key) as name:
            data = bytes(obstore.get_range(self._store, name, start=start, length=length))
        return whole(data, length, f"{self.url}/{key}", start)

    def read_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return several parts of an object, with requests at once; those that are close come with one."""
        if len(spans) == 1 or not all(length for _, length in spans):
            return super().read_ranges(key, spans)
        for start, length in spans:
            checked_range(start, length)
        with self._translated(key) as name:
            starts, lengths = [start for start, _ in spans], [length for _, length in spans]
            found = obstore.get_ranges(self._store, name, starts=starts, lengths=lengths, coalesce=_CLOSE_BYTES)
        where = f"{self.url}/{key}"
        return [whole(bytes(data), length, where, start) for data, (start, length) in zip(found, spans, strict=True)]

    def write(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Put an object there, replacing what is there."""
        with self._translated(key) as name:
            obstore.put(self._store, name, bytes(data))

    def create(self, key: str, data: bytes | bytearray | memoryview, *, durable: bool = True) -> None:
        """Put an object where none is."""
        del durable
        with self._translated(key) as name:
            obstore.put(self._store, name, bytes(data), mode="create", use_multipart=False)

    def list(self, folder: str = "") -> Iterator[Entry]:
        """Yield every object below a folder.

        Raises:
            UnsupportedError: A plain HTTP server cannot do this.
        """
        if self._scheme in {"http", "https"}:
            raise UnsupportedError(f"{self.url}: an HTTP server cannot list what it holds. Name the keys, or use another scheme.")
        return self._list(self._name(checked_key(folder)) if folder else self._prefix)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with contextlib.suppress(NotFoundError), self._translated(key) as name:
            obstore.delete(self._store, name)

    def size(self, key: str) -> int:
        """Return the object's length in bytes."""
        with self._translated(key) as name:
            return obstore.head(self._store, name)["size"]

    def upload_file(self, path: str | os.PathLike[str], key: str) -> None:
        """Copy a local file there, in parts if it is large."""
        source = existing_file(path)
        with self._translated(key) as name:
            obstore.put(self._store, name, source)

    def download_file(self, key: str, path: str | os.PathLike[str]) -> None:
        """Copy an object to a local file."""
        with self._translated(key) as name:
            found = obstore.get(self._store, name)
            size = found.meta["size"]
            with atomic_file(path, needed_bytes=size) as file:
                for chunk in found.stream(min_chunk_size=_STREAM_BYTES):
                    file.write(chunk)
                if file.tell() != size:
                    raise CorruptDataError(f"{self.url}/{key}: {file.tell():,} of {size:,} bytes came. Try again.")

    def copy(self, key: str, to: str) -> None:
        """Put the same object at another key too; the service does it, where it can."""
        if self._scheme in {"http", "https"} or (self._scheme == "s3" and self.size(key) > _S3_COPY_BYTES):
            super().copy(key, to)
            return
        target = self._name(checked_key(to))
        with self._translated(key) as name:
            obstore.copy(self._store, name, target)

    def _list(self, prefix: str) -> Iterator[Entry]:
        with self._translated():
            for page in obstore.list(self._store, prefix or None):
                for found in page:
                    key = found["path"].removeprefix(self._prefix).lstrip("/")
                    yield Entry(key, found["size"], found["last_modified"].timestamp())

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @contextlib.contextmanager
    def _translated(self, key: str | None = None) -> Generator[str, None, None]:
        """Yield obstore's name for the key, and raise our errors for its."""
        name = self._prefix if key is None else self._name(checked_key(key))
        try:
            yield name
        except exceptions.UnknownConfigurationKeyError as error:
            raise ConfigError(f"options for {self.url}: {_reason(error)}") from error
        except (exceptions.BaseError, FileNotFoundError) as error:  # for a missing object obstore raises the built-in error
            if isinstance(error, LeydenError):
                raise
            raise self._error(error, key) from error

    def _error(self, error: Exception, key: str | None) -> LeydenError:
        reason, where = _reason(error), self.url if key is None else f"{self.url}/{key}"
        hint = _HINTS.get(self._scheme, "")
        refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or "status code: 403" in reason
        rules: tuple[tuple[bool, type[LeydenError], str], ...] = (
            (isinstance(error, exceptions.AlreadyExistsError), ConflictError, f"{where} exists already. Use write() to replace it."),
            (_names(reason, _NO_BUCKET), NotFoundError, f"{where}: there is no such bucket. Create it, or correct the URL."),
            (isinstance(error, FileNotFoundError), NotFoundError, f"there is no object {key!r} in {self.url}."),
            (_names(reason, _NO_RANGE), CorruptDataError, f"{where}: it ends before the bytes asked for. It is shorter, or damaged."),
            (_names(reason, _METADATA_SERVICE), StorageError, f"{where}: no credentials were found. {hint} Or pass options=… with them."),
            (refused, StorageError, f"{where}: access was refused. {hint} The service said: {reason}"),
        )
        return next((kind(message) for holds, kind, message in rules if holds), StorageError(f"{where}: {reason}"))


@functools.cache
def _memory_store(_name: str) -> store.MemoryStore:
    """Return the one store of a name: as with a disk, whoever opens it in this process sees the same objects."""
    return store.MemoryStore()


def _remote_store(url: str, scheme: str, options: Mapping[str, object]) -> Any:  # obstore has a class for each service
    config = {_BOTO3_NAMES.get(name, name): value if isinstance(value, bool) else str(value) for name, value in options.items()}
    environ = settings.environment()
    endpoint = str(next((value for name, value in config.items() if "endpoint" in name), "")) or next(
        (environ[name] for name in _ENDPOINT_VARIABLES if environ.get(name)), ""
    )
    prepared = any(environ.get(name) for name in _CREDENTIAL_VARIABLES.get(scheme, ())) or any(
        word in name for name in config for word in ("key", "token", "skip", "account", "secret")
    )
    adc = scheme == "gs" and Path("~/.config/gcloud/application_default_credentials.json").expanduser().exists()
    patient = prepared or adc or scheme in {"http", "https"}
    plain = url.startswith("http://") or (scheme == "s3" and endpoint.startswith("http://"))
    from_url: Any = store.from_url  # its overloads want to know which service's keys these are
    return from_url(
        url,
        config=config or None,
        client_options={"allow_http": plain, "connect_timeout": timedelta(seconds=10 if patient else 2)},
        retry_config={
            "max_retries": 5 if patient else 0,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )


def _names(reason: str, signs: tuple[str, ...]) -> bool:
    return any(sign in reason for sign in signs)


def _reason(error: Exception) -> str:
    """Return obstore's message without its Rust debug dump."""
    text = " ".join(str(error).split("\n\nDebug source", maxsplit=1)[0].split())
    return text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + "…"
