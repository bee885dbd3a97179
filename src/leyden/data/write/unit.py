"""One unit of a job: the user's function over a range of inputs, into chunk files."""

import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from leyden.core.errors import NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.files import sync_directory
from leyden.core.storage import Storage, local_path, open_storage
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.filling import Filler, FillSettings
from leyden.data.format.keys import checked_key
from leyden.data.format.leaves import LeafRules
from leyden.data.interop.litdata_write import LitdataSettings
from leyden.data.write.fetching import TRANSFERS, Fetcher, Fetching

ONE_INPUT_TEXT = 300


class Failure(NamedTuple):
    """An input that could not be processed.

    Args:
        input: Its number.
        text: What it is.
        error: The type of what was raised, and its message.
        traceback: Where.
    """

    input: int
    text: str
    error: str
    traceback: str


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What every unit of a job has in common; goes to each worker once.

    Args:
        job: The job's id.
        function: The user's: returns a sample, yields several, or returns `None` to leave its input out.
        output: Where chunks go.
        options: Of the storage.
        settings: How large blocks and chunks become.
        rules: What may be stored.
        on_error: `raise`, `skip` or `quarantine`.
        encryption: `None`, or what encrypts.
        cipher: What the manifest will say of it.
        reader: Makes of an input what the function gets.
        durable: Whether chunks are on the disk before a unit is done.
        key_function: Makes a row's key of its sample.
        writes_files: Whether the function writes files, as that of `map` does.
        run: Does a unit in place of `run_unit`, from the same arguments; its chunks are not packed.
        fetching: Which strings of inputs are fetched; `None`: none.
        uploads: How many are in flight.
        litdata: How LitData's chunks are filled, where the dataset has its layout.
    """

    job: str
    function: Callable[..., Any]
    output: str
    options: Mapping[str, Any]
    settings: FillSettings
    rules: LeafRules
    on_error: str = "raise"
    encryption: Any = None
    cipher: Mapping[str, Any] | None = None
    reader: Any = None
    durable: bool = True
    key_function: Any = None
    writes_files: bool = False
    run: Callable[..., dict[str, Any]] | None = None
    fetching: Fetching | None = None
    uploads: int = TRANSFERS
    litdata: LitdataSettings | None = None


class Reports(Protocol):
    """Hears which input is worked on, so that whoever watches knows the culprit if this process dies."""

    def __call__(self, index: int) -> None:
        """Work on input `index` of the job begins; a number after the unit's last: on none any more."""
        ...


class UnitFailed(Exception):  # noqa: N818 - it is a message to the driver
    """An input failed, and the policy is to raise."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


def run_unit(task: Task, unit: int, first: int, inputs: Sequence[Any], without: frozenset[int], report: Reports) -> dict[str, Any]:
    """Process a unit, and return its record; its chunks are in the output.

    Args:
        task: The job's.
        unit: The unit's number.
        first: The number of its first input.
        inputs: Its inputs.
        without: Inputs that killed a worker too often, by number.
        report: Hears which input is worked on.

    Raises:
        UnitFailed: An input failed, and the policy is to raise.
        StorageError: The output refuses.
    """
    left_out: dict[int, Failure] = {}
    while True:
        try:
            return _run(task, unit, first, inputs, without, report, left_out)
        except _Begun as begun:
            left_out[begun.failure.input] = begun.failure


class _Begun(Exception):  # noqa: N818 - it is a message
    """An input failed after rows of it were written: the unit begins anew, without it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


def _run(
    task: Task,
    unit: int,
    first: int,
    inputs: Sequence[Any],
    without: frozenset[int],
    report: Reports,
    left_out: Mapping[int, Failure],
) -> dict[str, Any]:
    """Process a unit without some inputs that have failed."""
    start = time.monotonic()
    ciphers = None if task.encryption is None else DatasetCiphers(task.encryption, task.cipher)
    with OutputFolder(task.output, task.options, task.uploads) as folder, Fetcher(task.fetching, inputs) as fetcher:
        filler = Filler(
            folder.path, job=task.job, unit=str(unit), settings=task.settings, rules=task.rules, ciphers=ciphers, durable=task.durable
        )
        failures: list[Failure] = []
        adder = _Adder(task, filler, is_careful=bool(left_out))
        try:
            for index in range(first, first + len(inputs)):
                report(index)
                if index in without:
                    continue
                failure = left_out.get(index) or adder.add(index, given_by(fetcher, inputs, index - first))
                if failure is not None:
                    if task.on_error == "raise":
                        raise UnitFailed(failure)
                    failures.append(failure)
            report(first + len(inputs))  # writing what is left is no input's fault, and has no timeout
            failpoint("data.unit.written")
            chunks = filler.finish()
        except BaseException:
            filler.discard()
            raise
        folder.publish([chunk.name for chunk in chunks], durable=task.durable)
    schema = filler.schema
    return {
        "unit": unit,
        "inputs": len(inputs),
        "rows": filler.rows,
        "bytes": filler.bytes,
        "oversized": filler.oversized,
        "failures": [failure._asdict() for failure in failures],
        "chunks": [chunk._asdict() for chunk in chunks],
        "schema": None if schema is None else schema.to_json(),
        "keys": adder.keys,
        "seconds": round(time.monotonic() - start, 3),
    }


class Given(NamedTuple):
    """An input as the function gets it.

    Args:
        told: What was given, for messages.
        item: The same with its files here.
        missing: Why it is not here.
    """

    told: Any
    item: Any
    missing: NotFoundError | None


def given_by(fetcher: Fetcher, inputs: Sequence[Any], place: int) -> Given:
    """Return an input of a unit with its files fetched; one whose files are not there fails when it is looked at.

    Raises:
        StorageError: A file is there, but cannot be fetched now.
    """
    try:
        return Given(inputs[place], fetcher.local(place), None)
    except NotFoundError as error:
        return Given(inputs[place], None, error)


def read_input(task: Task, given: Given) -> Any:
    """Return what the function gets.

    Raises:
        NotFoundError: A file of the input is not there.
    """
    if given.missing is not None:
        raise given.missing
    return given.item if task.reader is None else task.reader.read(given.item)


def failure_of(index: int, given: Given, error: Exception) -> Failure:
    """Return what is told of an input that raised; called where the exception is handled."""
    return Failure(index, f"{given.told!r}"[:ONE_INPUT_TEXT], f"{type(error).__name__}: {error}", traceback.format_exc())


@final
class _Adder:
    """Adds the samples of inputs to chunks.

    Args:
        task: The job's.
        filler: Takes them.
        is_careful: Whether several samples of an input are looked at before the first is written.
    """

    def __init__(self, task: Task, filler: Filler, *, is_careful: bool) -> None:
        self._task, self._filler, self._is_careful = task, filler, is_careful
        self.keys: list[str | int] = []

    def add(self, index: int, given: Given) -> Failure | None:
        """Add the samples of one input; where failures are left out, all of them or none.

        Raises:
            StorageError: The output refuses, which is no input's fault.
            _Begun: Some of them are written already.
        """
        if self._task.on_error == "raise":
            return self._add_one_by_one(index, given)
        mark, num_keys = self._filler.mark(), len(self.keys)
        try:
            samples = list(self._samples_of(given))
            if self._is_careful and len(samples) > 1:
                self._filler.check(samples)
            self.keys += self._keys_of(samples)
            for sample in samples:
                self._filler.append(sample)
        except Exception as error:
            if self._filler.has_failed:
                raise
            failure = failure_of(index, given, error)
            if not self._filler.go_back(mark):
                raise _Begun(failure) from error
            del self.keys[num_keys:]
            return failure
        return None

    def _add_one_by_one(self, index: int, given: Given) -> Failure | None:
        has_keys, append = self._task.key_function is not None, self._filler.append
        try:
            for sample in self._samples_of(given):
                keys = self._keys_of((sample,)) if has_keys else ()
                append(sample)
                if has_keys:
                    self.keys += keys
        except Exception as error:
            if self._filler.has_failed:
                raise
            return failure_of(index, given, error)
        return None

    def _samples_of(self, given: Given) -> Iterable[Any]:
        made = self._task.function(read_input(self._task, given))
        if isinstance(made, Iterator):
            return (sample for sample in made if sample is not None)
        return () if made is None else (made,)

    def _keys_of(self, samples: Sequence[Any]) -> list[str | int]:
        function = self._task.key_function
        return [] if function is None else [checked_key(function(sample)) for sample in samples]


@final
class OutputFolder:
    """Where chunks are written: the output itself, or a temporary folder from which they are uploaded."""

    def __init__(self, output: str, options: Mapping[str, Any], uploads: int = TRANSFERS) -> None:
        local = local_path(output)
        self._remote: Storage | None = open_storage(output, options) if local is None else None
        self._output, self._uploads = local or "", uploads

    def __enter__(self) -> "OutputFolder":
        self._temporary = tempfile.TemporaryDirectory(prefix="leyden-unit-") if self._remote is not None else None
        self.path = Path(self._temporary.name if self._temporary is not None else self._output)
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def publish(self, names: Sequence[str], *, durable: bool = True) -> None:
        """Upload the chunks if the output is elsewhere; else see to it that their names are on the disk, before a record says so."""
        remote = self._remote
        if remote is None:
            if durable and names:
                sync_directory(self.path)
            return
        with ThreadPoolExecutor(self._uploads, "leyden-upload") as threads:
            for sent in [threads.submit(remote.upload_file, self.path / name, name) for name in names]:
                sent.result()
