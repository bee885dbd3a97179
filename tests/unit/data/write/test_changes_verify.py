"""`verify` looks into what changes have written: column files, deletions, keys."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden import data as ld
from leyden.core.errors import CorruptDataError, LeydenError
from leyden.core.storage import open_storage
from leyden.data.format import deletes, keys
from leyden.data.format.manifest import Deleted, Manifest
from leyden.data.format.versions import commit, files_of, open_manifest
from tests.support.changes import double, faults, key_of, opened, write


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("changed")
    write(place, range(10), key_fn=key_of)
    ld.delete_rows(place, [2, 9])
    ld.add_columns(place, double, num_workers=0, output="numpy")
    assert faults(place) == []
    return place


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 99), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_file_is_found(changed: Path, which: int, where: float, bit: int) -> None:
    names = sorted(files_of(open_manifest(open_storage(changed))))
    path = changed / names[which % len(names)]
    data = path.read_bytes()
    place = int(where * len(data))
    path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    try:
        assert any(path.name in fault for fault in faults(changed))
    finally:
        path.write_bytes(data)


def test_a_missing_column_file_is_found_and_named_on_reading(changed: Path) -> None:
    name = open_manifest(open_storage(changed)).chunks[0].files[0].name
    data = (changed / name).read_bytes()
    (changed / name).unlink()
    try:
        assert [fault.chunk for fault in ld.verify(str(changed), fast=True).faults] == [name]
        with pytest.raises(CorruptDataError, match=name):
            opened(changed)[0]
    finally:
        (changed / name).write_bytes(data)


def _with(place: Path, **changes: object) -> None:
    commit(open_storage(place), lambda newest: _next(newest, **changes))


def _next(newest: Manifest | None, **changes: object) -> Manifest:
    assert newest is not None
    return dataclasses.replace(newest, version=newest.version + 1, **changes)  # type: ignore[arg-type]


def test_files_that_do_not_say_what_the_manifest_says_are_found(tmp_path: Path) -> None:
    write(tmp_path, range(10), key_fn=key_of)
    chunk, *others = open_manifest(open_storage(tmp_path)).chunks
    for name, rows in (("few", [1]), ("far", [1, 4])):
        (tmp_path / f"_leyden/deletes-{name}.bin").write_bytes(deletes.to_bytes(rows))
        _with(tmp_path, chunks=(dataclasses.replace(chunk, deleted=Deleted(f"_leyden/deletes-{name}.bin", 2)), *others))
        assert any(text in faults(tmp_path)[0] for text in ("lists 1 deleted rows where the manifest says 2", "lists row 4 of chunk-"))
    (tmp_path / "_leyden/keys-x.bin").write_bytes(keys.to_bytes([1, 2], np.array([3, 10])))
    for count, words in ((3, "holds 2 keys where the manifest says 3"), (2, "has a key of row 10, and there are 10")):
        _with(tmp_path, chunks=(chunk, *others), keys={"name": "_leyden/keys-x.bin", "rows": count})
        assert words in faults(tmp_path)[0]


def test_a_dataset_whose_deletions_are_gone_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    ld.delete_rows(tmp_path, [2])
    next(tmp_path.glob("_leyden/deletes-*")).unlink()
    with pytest.raises(LeydenError, match=r"deletes-.* is not at"):
        opened(tmp_path)
