"""One unit of `map`: the user's function writes files into a private folder, which move when the unit is done.

The record names each file with its digest before anything moves, so that moving can be done again by anybody.
"""

import contextlib
import inspect
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyden.core.errors import ConflictError
from leyden.core.failpoints import failpoint
from leyden.data.errors import IncompleteJobError
from leyden.data.format.hashing import digest128
from leyden.data.write.unit import ONE_INPUT_TEXT, Failure, Reports, Task, UnitFailed

TEMPORARY = "_leyden/tmp"


def run_files_unit(task: Task, unit: int, first: int, inputs: Sequence[Any], without: frozenset[int], report: Reports) -> dict[str, Any]:
    """Process a unit of `map`, and return its record; its files lie in a private folder below the output.

    Raises:
        UnitFailed: An input failed, and the policy is to raise.
    """
    start = time.monotonic()
    folder = Path(task.output) / TEMPORARY / task.job / f"{unit}-{time.time_ns()}"
    failures: list[Failure] = []
    names = _accepted(task.function)
    for index, item in enumerate(inputs, start=first):
        report(index)
        if index in without:
            continue
        private = folder / str(index)  # what a failed input has written goes
        private.mkdir(parents=True)
        extra = {key: value for key, value in {"device": None, "is_last": index == first + len(inputs) - 1}.items() if key in names}
        try:
            task.function(item if task.reader is None else task.reader.read(item), str(private), **extra)
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything; the policy decides
            shutil.rmtree(private, ignore_errors=True)
            failure = Failure(index, f"{item!r}"[:ONE_INPUT_TEXT], f"{type(error).__name__}: {error}", traceback.format_exc())
            if task.on_error == "raise":
                shutil.rmtree(folder, ignore_errors=True)
                raise UnitFailed(failure) from None
            failures.append(failure)
    failpoint("data.unit.written")
    return {
        "unit": unit,
        "inputs": len(inputs),
        "rows": len(inputs) - len(failures) - len(without),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "failures": [failure._asdict() for failure in failures],
        "chunks": [],
        "schema": None,
        "folder": folder.relative_to(task.output).as_posix(),
        "files": list(_described(folder)),
        "seconds": round(time.monotonic() - start, 3),
    }


def move(output: Path, records: Sequence[Mapping[str, Any]]) -> int:
    """Move the files of all units to their places, and return how many there are; what has moved already stays.

    Args:
        output: Where files belong.
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
    for record in records:
        for file in record["files"]:
            _move_one(output, output / record["folder"] / str(file["input"]) / file["path"], file)
    return len(owners)


def _move_one(output: Path, source: Path, file: Mapping[str, Any]) -> None:
    target = output / file["path"]
    failpoint("data.map.move")
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another driver moves too
            source.replace(target)
    if not target.exists():
        raise IncompleteJobError(f"{target} of input {file['input']} is gone. Run the call with resume=False.")


def remove_temporary(output: Path, job: str) -> None:
    """Remove what is left of a job's private folders."""
    shutil.rmtree(output / TEMPORARY / job, ignore_errors=True)


def _accepted(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _described(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            index, _, rest = path.relative_to(folder).as_posix().partition("/")
            data = path.read_bytes()
            yield {"path": rest, "input": int(index), "bytes": len(data), "digest": digest128(data)}
