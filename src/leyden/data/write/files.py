"""One unit of `map`: the user's function writes files into a private folder, which move when the unit is done.

The record names each file with its digest before anything moves, so that moving can be done again by anybody.
"""

import inspect
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import current_process
from pathlib import Path
from typing import Any

from leyden.core.errors import ConflictError
from leyden.core.failpoints import failpoint
from leyden.core.storage import is_url, local_path
from leyden.data.format.hashing import digest128
from leyden.data.write.feeding import SpooledInputs
from leyden.data.write.fetching import Fetcher
from leyden.data.write.places import FilesPlace, files_place
from leyden.data.write.unit import Failure, Given, Reports, Task, UnitFailed, failure_of, given_by, read_input

_PATHS, _LISTS = (str, os.PathLike), (list, tuple, SpooledInputs)


def run_files_unit(task: Task, unit: int, first: int, inputs: Sequence[Any], without: frozenset[int], report: Reports) -> dict[str, Any]:
    """Process a unit of `map`, and return its record; its files lie in a private folder below the output.

    Raises:
        UnitFailed: An input failed, and the policy is to raise.
        StorageError: The output refuses.
    """
    start = time.monotonic()
    failures: list[Failure] = []
    names = _accepted(task.function)
    with files_place(task.output, task.options, task.uploads).unit_folder(task.job, unit) as folder:
        with Fetcher(task.fetching, inputs) as fetcher:
            for index in range(first, first + len(inputs)):
                report(index)
                if index in without:
                    continue
                extra = {"is_last": index == first + len(inputs) - 1} if "is_last" in names else {}
                extra |= {"device": _device()} if "device" in names else {}
                failure = _call(task, folder.path / str(index), index, given_by(fetcher, inputs, index - first), extra)
                if failure is not None and task.on_error == "raise":
                    raise UnitFailed(failure)
                failures += [] if failure is None else [failure]
        report(first + len(inputs))
        failpoint("data.unit.written")
        files = list(_described(folder.path))
        folder.publish([f"{file['input']}/{file['path']}" for file in files])
    return {
        "unit": unit,
        "inputs": len(inputs),
        "rows": len(inputs) - len(failures) - len(without),
        "bytes": sum(file["bytes"] for file in files),
        "failures": [failure._asdict() for failure in failures],
        "chunks": [],
        "schema": None,
        "folder": folder.key,
        "files": files,
        "seconds": round(time.monotonic() - start, 3),
    }


def _call(task: Task, private: Path, index: int, given: Given, extra: Mapping[str, Any]) -> Failure | None:
    private.mkdir(parents=True)
    try:
        task.function(read_input(task, given), str(private), **extra)
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything; the policy decides
        shutil.rmtree(private, ignore_errors=True)  # what a failed input has written goes
        return failure_of(index, given, error)
    return None


def move(place: FilesPlace, records: Sequence[Mapping[str, Any]]) -> int:
    """Move the files of all units to their places, and return how many there are; what has moved already stays.

    Args:
        place: Where files belong.
        records: Of all units.

    Raises:
        ConflictError: Two inputs wrote one path with other bytes.
        IncompleteJobError: A file is neither here nor there.
    """
    owners: dict[str, Mapping[str, Any]] = {}
    for record in records:
        for file in record["files"]:
            other = owners.setdefault(file["path"], file)
            if other["digest"] != file["digest"]:
                raise ConflictError(
                    f"inputs {other['input']} and {file['input']} both wrote {file['path']}, with other bytes. Name files by input."
                )
    for path, file in owners.items():
        above = next((each for each in _folders_of(path) if each in owners), None)
        if above is not None:
            raise ConflictError(
                f"input {file['input']} wrote {path}, and input {owners[above]['input']} a file {above}, which cannot be a folder too. "
                "Name files by input."
            )
    place.move_all([(f"{record['folder']}/{file['input']}/{file['path']}", file["path"]) for record in records for file in record["files"]])
    return len(owners)


def refuse_overwriting(output: str, records: Sequence[Mapping[str, Any]], inputs: Sequence[Any]) -> None:
    """Refuse to put a file where an input lies.

    Args:
        output: Where the files of `map` go.
        records: Of all units.
        inputs: All of them: paths are looked for in their text.

    Raises:
        ConflictError: One would be overwritten.
    """
    folder = local_path(output)
    root = output.rstrip("/") if folder is None else str(Path(folder).absolute())
    targets = {f"{root}/{file['path']}" for record in records for file in record["files"]}
    for text in _paths_in(inputs):
        path = text if is_url(text) else os.path.abspath(text)  # noqa: PTH100 - a million of them, and links are names too
        if path in targets:
            raise ConflictError(f"{text} is an input, and a file that was written would take its place. Choose another output_dir.")


def _paths_in(value: Any) -> Iterator[str]:
    if isinstance(value, _PATHS):
        text = os.fspath(value)
        if isinstance(text, str):
            yield text
    elif isinstance(value, Mapping):
        yield from _paths_in(list(value.values()))
    elif isinstance(value, _LISTS):
        for each in value:
            yield from _paths_in(each)


def _folders_of(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def _accepted(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _device() -> str | None:
    """Return the accelerator of this worker: they are dealt out in turn."""
    import torch  # only for functions that ask for a device

    number = current_process().name.rpartition("-")[2]
    return f"cuda:{int(number if number.isdecimal() else 0) % torch.cuda.device_count()}" if torch.cuda.is_available() else None


def _described(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            index, _, rest = path.relative_to(folder).as_posix().partition("/")
            data = path.read_bytes()
            yield {"path": rest, "input": int(index), "bytes": len(data), "digest": digest128(data)}
