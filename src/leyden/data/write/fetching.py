"""Remote files that inputs name are fetched ahead, and the function gets local paths.

What is fetched is decided before the job begins: strings below `input_dir`, or URLs of object stores if the first input holds
one. The disk is never asked whether a string may be a path. A file goes when its input is done.
"""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, final

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.storage import Storage, is_url, local_path, open_storage
from leyden.data.config import Dir, place_of

TRANSFERS: Final = 8  # in flight, for each process
_SEQUENCES = (list, tuple)
_STORES = ("s3://", "gs://", "az://", "memory://")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetching:
    """Which strings of an input are fetched.

    Args:
        prefix: What they begin with; empty: URLs of object stores.
        url: What stands in place of the prefix.
        options: Of the storage.
        downloads: How many are in flight.
    """

    prefix: str
    url: str
    options: Mapping[str, Any]
    downloads: int = TRANSFERS

    def place_of(self, text: str) -> tuple[str, str] | None:
        """Return the storage's root and the key of a string's file; `None` if it names none."""
        if self.prefix:
            return (self.url, text.removeprefix(self.prefix)) if text.startswith(self.prefix) and text != self.prefix else None
        if not text.startswith(_STORES):
            return None
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        return (f"{scheme}://{bucket}", key) if key else None


def fetching_of(
    input_dir: "str | Dir | None", first: Any, options: Mapping[str, Any] | None, num_downloaders: int | None = None
) -> Fetching | None:
    """Return what is fetched for a job; `None` if nothing is.

    Args:
        input_dir: Where the files lie.
        first: The first input, which is looked at if no `input_dir` is given.
        options: Of the storage.
        num_downloaders: How many downloads are in flight.

    Raises:
        ConfigError: A number is not accepted, options have no names, or `input_dir` is not there.
    """
    options = _named(options)
    downloads = checked_transfers("num_downloaders", num_downloaders)
    if input_dir is None:
        holds_url = any(text.startswith(_STORES) for text in _texts(first))
        return Fetching(prefix="", url="", options=options, downloads=downloads) if holds_url else None
    url = place_of(input_dir)
    if not is_url(url) or url.startswith("file:"):
        if not Path(local_path(url) or url).is_dir():
            raise ConfigError(f"input_dir={url!r} is no folder here: give the one that the inputs lie in, or leave it out.")
        return None  # strings below a local folder are local paths
    local = input_dir.path if isinstance(input_dir, Dir) and input_dir.path else url
    return Fetching(prefix=local.rstrip("/") + "/", url=url.rstrip("/"), options=options, downloads=downloads)


def options_of(output: str, options: Mapping[str, Any] | None, fetching: Fetching | None) -> dict[str, Any]:
    """Return the options of the output's storage: those of a folder are refused, unless they are for what is fetched."""
    is_for_inputs = fetching is not None and (not is_url(output) or output.startswith(("file:", "memory:")))
    return {} if is_for_inputs else _named(options)


def _named(options: Any) -> dict[str, Any]:
    if options is not None and not isinstance(options, Mapping):
        raise ConfigTypeError(f"storage_options={options!r:.60} is not accepted: it takes a dict, such as {{'region_name': 'eu-west-1'}}.")
    return dict(options or {})


def checked_transfers(name: str, count: int | None) -> int:
    """Return how many transfers are in flight.

    Raises:
        ConfigError: It is no whole number ≥ 1.
    """
    if count is None:
        return TRANSFERS
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"{name}={count!r} is not accepted: it takes a whole number of transfers ≥ 1.")
    return count


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, _SEQUENCES):
        for each in value:
            yield from _texts(each)


@final
class Fetcher:
    """Fetches the files of a unit's inputs, a few inputs ahead.

    Args:
        fetching: What is fetched; `None`: nothing.
        inputs: The unit's.
    """

    def __init__(self, fetching: Fetching | None, inputs: Sequence[Any]) -> None:
        self._fetching, self._inputs = fetching, inputs
        self._storages: dict[str, Storage] = {}
        self._begun: dict[int, dict[str, Future[Path]]] = {}
        self._next = 0

    def __enter__(self) -> "Fetcher":
        self._stack = contextlib.ExitStack()
        if self._fetching is not None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-inputs-")))
            self._threads = ThreadPoolExecutor(self._fetching.downloads, "leyden-fetch")
            self._stack.callback(self._threads.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def local(self, place: int) -> Any:
        """Return an input with local paths in place of what was fetched.

        Args:
            place: Its place in the unit. Files of inputs before it are gone.

        Raises:
            NotFoundError: There is no such file.
            StorageError: It cannot be fetched.
        """
        if self._fetching is None:
            return self._inputs[place]
        for old in [number for number in self._begun if number < place]:
            del self._begun[old]
            shutil.rmtree(self._folder / str(old), ignore_errors=True)
        for number in range(max(self._next, place), min(place + 2 * self._fetching.downloads, len(self._inputs))):
            self._begin(number, self._fetching)
        paths = {text: str(future.result()) for text, future in self._begun[place].items()}
        return _replaced(self._inputs[place], paths) if paths else self._inputs[place]

    def _begin(self, number: int, fetching: Fetching) -> None:
        places = {text: fetching.place_of(text) for text in _texts(self._inputs[number])}
        self._begun[number] = {
            text: self._threads.submit(self._fetch, *place, self._folder / str(number) / str(index))
            for index, (text, place) in enumerate(places.items())
            if place is not None
        }
        self._next = number + 1

    def _fetch(self, root: str, key: str, folder: Path) -> Path:
        path = folder / key.rpartition("/")[2]
        storage = self._storages.get(root)
        if storage is None:
            options = {} if self._fetching is None or root.startswith("memory:") else self._fetching.options
            storage = self._storages[root] = open_storage(root, options)
        folder.mkdir(parents=True, exist_ok=True)
        storage.download_file(key, path)
        return path


def _replaced(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return paths.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(each, paths) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, paths) for each in value]
    if isinstance(value, tuple):
        made: Any = getattr(type(value), "_make", tuple)  # a named tuple stays one
        return made(_replaced(each, paths) for each in value)
    return value
