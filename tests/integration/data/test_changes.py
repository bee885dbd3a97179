"""Changes in real processes: killed at every step, several at once, and against an S3 server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConflictError
from leyden.data.format.cipher import AesGcm
from tests.support.changes import faults, ids, key_of, missing_files, opened, record, unnamed_files, write
from tests.support.s3_server import S3Server, s3_server

_ROOT = Path(__file__).parents[3]
_KEY = AesGcm(key=bytes(range(32)))
_CHANGES = """
import sys
from leyden import data as ld
from tests.support.changes import double, key_of, record, write

def update(place):
    with ld.dataset_update(place) as update:
        update[0] = record(100)
        update[9] = record(109)
        update.commit()

CHANGES = {
    "delete": lambda place: ld.delete_rows(place, [0, 9]),
    "update": update,
    "keys": lambda place: ld.build_keys_index(place, key_of),
    "rollback": lambda place: ld.rollback(place, 1),
    "columns": lambda place: ld.add_columns(place, double, num_workers=1, output="numpy"),
    "append": lambda place: write(place, [200, 201], mode="append", num_workers=1),
    "gc": lambda place: ld.gc(place, keep=1, older_than=0),
}
if __name__ == "__main__":
    CHANGES[sys.argv[2]](sys.argv[1])
"""
_COMMIT = ("data.commit.before", "data.commit.between", "data.commit.after")
_STEPS = [
    *[(change, step) for change in ("delete", "update", "keys") for step in ("data.change.file", *_COMMIT)],
    *[("rollback", step) for step in _COMMIT],
    *[("columns", step) for step in ("data.lease.before:2", "data.done.before", "data.done.after:2", "data.columns.made", *_COMMIT)],
    *[("gc", step) for step in ("data.sweep.manifest", "data.sweep.file")],
]


def _start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _CHANGES, *arguments]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]), **variables}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(*arguments: str, **variables: str) -> int:
    with _start(*arguments, **variables) as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode in {0, -9}, errors
        return process.returncode


_AFTER: dict[str, list[dict[str, Any]]] = {
    "delete": [record(number) for number in range(1, 9)],
    "update": [record(100), *(record(number) for number in range(1, 9)), record(109)],
    "keys": [record(number) for number in range(10)],
    "rollback": [record(number) for number in range(10)],
    "columns": [{**record(number), "double": 2 * number} for number in range(10)],
    "gc": [record(number) for number in range(10)],
}


@pytest.mark.parametrize(("change", "step"), _STEPS)
def test_a_killed_change_leaves_the_old_version_or_the_new_one(tmp_path: Path, change: str, step: str) -> None:
    write(tmp_path, range(10))
    if change in {"rollback", "gc"}:
        ld.delete_rows(tmp_path, [3])
        write(tmp_path, range(10), mode="overwrite")
    before = opened(tmp_path).version
    assert _run(str(tmp_path), change, LEYDEN_FAILPOINT=f"{step}=kill") == -9
    found = opened(tmp_path)
    is_new = step in {"data.commit.between", "data.commit.after"}
    assert (found.version, found[:]) == ((before + 1, _AFTER[change]) if is_new else (before, [record(number) for number in range(10)]))
    assert (faults(tmp_path), missing_files(tmp_path)) == ([], [])
    if change in {"columns", "gc"} or not is_new:
        assert _run(str(tmp_path), change) == 0
    assert (opened(tmp_path)[:], faults(tmp_path)) == (_AFTER[change], [])
    ld.gc(tmp_path, keep=1, older_than=0)
    assert (opened(tmp_path)[:], faults(tmp_path), unnamed_files(tmp_path)) == (_AFTER[change], [], [])


_WRITER = """
import json, sys
from leyden import data as ld
from leyden.core.errors import ConflictError
from tests.support.changes import record, write

kind, place, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
print("ready", flush=True)
sys.stdin.readline()
done = []
for turn in range(3):
    try:
        if kind == "append":
            write(place, [1000 * number + turn], mode="append", storage_options=options)
            done.append(1000 * number + turn)
        else:
            wanted = 4 * number + turn  # each deleter has a chunk of its own
            ld.delete_rows(place, lambda batch: batch["id"] == wanted, storage_options=options)
            done.append(wanted)
    except ConflictError as error:
        print("conflict", file=sys.stderr)
print(json.dumps(done))
"""


def _race(place: str, options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Let three appenders and two deleters work at once; return what they say is there and what is gone."""
    command = [sys.executable, "-c", _WRITER]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])}
    kinds = [("append", 1), ("append", 2), ("append", 3), ("delete", 0), ("delete", 1)]
    arguments = [[*command, kind, place, str(number), json.dumps(options)] for kind, number in kinds]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(each, env=environ, text=True, **pipes) for each in arguments]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    found: dict[str, list[int]] = {"append": [], "delete": []}
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for (kind, _), process in zip(kinds, running, strict=True):
        said, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
        found[kind] += json.loads(said)
    return found["append"], found["delete"]


def test_appenders_and_deleters_at_once_all_land(tmp_path: Path) -> None:
    write(tmp_path, range(8))
    there, gone = _race(str(tmp_path), {})
    assert (len(there), len(gone)) == (9, 6)  # nobody touched what another one touches: there is nothing to refuse
    assert sorted(ids(tmp_path)) == sorted([*set(range(8)) - set(gone), *there])
    assert (faults(tmp_path), missing_files(tmp_path)) == ([], [])
    assert [found.version for found in ld.versions(tmp_path)] == list(range(1, 17))


# -- a remote store ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@pytest.mark.parametrize("encryption", [None, _KEY], ids=["plain", "encrypted"])
def test_every_change_works_on_a_bucket(server: S3Server, tmp_path: Path, encryption: Any) -> None:
    bucket = server.make_bucket(f"changes-{'plain' if encryption is None else 'sealed'}")
    place, options = f"{bucket}/train", {"storage_options": server.options}
    sealed = {**options, "encryption": encryption}
    write(place, range(10), **sealed)
    ld.delete_rows(place, [0, 5], **options)
    ld.delete_rows(place, lambda batch: batch["id"] == 3, **sealed)
    write(place, [10, 11], mode="append", **sealed)
    ld.build_keys_index(place, key_of, **sealed)
    ld.add_columns(place, lambda sample: {"double": sample["id"] * 2}, num_workers=0, output="numpy", **sealed)
    with ld.dataset_update(place, **sealed) as update:
        update[7] = {**update[7], "text": "seven"}
        update.commit()
    found = opened(place, **sealed)
    assert [(sample["id"], sample["double"]) for sample in found[:]] == [(number, 2 * number) for number in (1, 2, 4, 6, 7, 8, 9, 10, 11)]
    assert found.get_by_key(7)["text"] == "seven"
    cached = ld.StreamingDataset(place, cache_dir=str(tmp_path / "cache"), output="numpy", **sealed)
    assert [list(cached) == found[:] for _ in range(2)] == [True, True]
    assert faults(place, **sealed) == []

    write(f"{bucket}/other", [50, 51], **sealed)
    other = {"fn": lambda sample: {"double": 0}, "num_workers": 0, "output": "numpy"}
    ld.add_columns(f"{bucket}/other", **other, **sealed)
    ld.merge_datasets([place, f"{bucket}/other"], f"{bucket}/both", **sealed)  # within the bucket
    ld.merge_datasets([place, f"{bucket}/other"], tmp_path / "both", **sealed)  # out of it
    merged = [1, 2, 4, 6, 7, 8, 9, 10, 11, 50, 51]
    assert ids(f"{bucket}/both", **sealed) == ids(tmp_path / "both", encryption=encryption) == merged
    assert (faults(f"{bucket}/both", **sealed), faults(tmp_path / "both", encryption=encryption)) == ([], [])

    assert ld.rollback(place, 1, **options).version == 8
    assert ids(place, **sealed) == list(range(10))
    assert [each.operation for each in ld.versions(place, **options)] == [
        "create", "delete", "delete", "append", "keys", "columns", "update", "rollback",
    ]  # fmt: skip
    ld.gc(place, keep=1, older_than=0, **options)
    assert (ids(place, **sealed), faults(place, **sealed)) == (list(range(10)), [])
    assert (missing_files(place, server.options), unnamed_files(place, server.options)) == ([], [])


def test_appenders_and_deleters_at_once_all_land_in_a_bucket(server: S3Server) -> None:
    place, options = f"{server.make_bucket('race')}/train", {"storage_options": server.options}
    write(place, range(8), **options)
    there, gone = _race(place, dict(server.options))
    assert sorted(ids(place, **options)) == sorted([*set(range(8)) - set(gone), *there])
    assert (len(there), len(gone), faults(place, **options)) == (9, 6, [])


def test_a_change_is_refused_in_a_bucket_too(server: S3Server) -> None:
    place, options = f"{server.make_bucket('refused')}/train", {"storage_options": server.options}
    write(place, range(8), **options)
    update = ld.dataset_update(place, **options)
    update[0] = record(90)
    ld.delete_rows(place, [1], **options)
    with pytest.raises(ConflictError):
        update.commit()
    assert unnamed_files(place, server.options) == []


def test_columns_are_made_by_several_drivers(tmp_path: Path) -> None:
    write(tmp_path, range(40))
    places = [{"RANK": str(rank), "WORLD_SIZE": "3"} for rank in range(3)]
    running = [_start(str(tmp_path), "columns", **place) for place in places]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert opened(tmp_path).version == 2
    assert opened(tmp_path)[:] == [{**record(number), "double": 2 * number} for number in range(40)]
    assert (faults(tmp_path), unnamed_files(tmp_path)) == ([], [])
