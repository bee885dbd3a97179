"""Laws: after any sequence of changes a dataset holds what a plain list holds after the same, in every version."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from leyden import data as ld
from tests.support.changes import document, documents, faults, missing_files, opened, write

Row = dict[str, Any]
_numbers = itertools.count()


def _make(row: Row) -> Row:
    return row


class _Model:
    """A dataset and the lists that its versions must equal."""

    def __init__(self, place: str) -> None:
        self.place, self.count, self.columns = place, 0, list[str]()
        self.versions: dict[int, tuple[list[Row], list[str]]] = {}
        self.rows: list[Row] = []

    def fresh(self, count: int) -> list[Row]:
        made = []
        for _ in range(count):
            self.count += 1
            made.append({"id": self.count, "text": "x" * (self.count % 5), **dict.fromkeys(self.columns, self.count)})
        return made

    def note(self) -> None:
        version = opened(self.place).version
        assert version == len(self.versions) + 1
        self.versions[version] = list(self.rows), list(self.columns)

    def append(self, count: int) -> None:
        made = self.fresh(count)
        write(self.place, made, fn=_make, mode="append")  # type: ignore[arg-type]
        self.rows = self.rows + made
        self.note()

    def overwrite(self, count: int) -> None:
        self.columns = []
        self.rows = self.fresh(count)
        write(self.place, self.rows, fn=_make, mode="overwrite" if self.versions else None)  # type: ignore[arg-type]
        self.note()

    def delete(self, draw: float, *, by_function: bool) -> None:
        gone = {int(draw * index) % len(self.rows) for index in range(1, 4)} if self.rows else set()
        if not gone:
            return
        numbers = [self.rows[index]["id"] for index in gone]
        ld.delete_rows(self.place, (lambda batch: [each in numbers for each in batch["id"].tolist()]) if by_function else sorted(gone))
        self.rows = [row for index, row in enumerate(self.rows) if index not in gone]
        self.note()

    def update(self, draw: float) -> None:
        if not self.rows:
            return
        index = int(draw * 97) % len(self.rows)
        (row,) = self.fresh(1)
        with ld.dataset_update(self.place) as update:
            update[index] = row
            update.commit()
        self.rows = [*self.rows[:index], row, *self.rows[index + 1 :]]
        self.note()

    def add_column(self) -> None:
        if not self.rows:
            return
        name = f"c{len(self.columns)}"

        def fn(sample: Row) -> Row:
            return {name: sample["id"]}

        ld.add_columns(self.place, fn, num_workers=0, fsync=False, output="numpy", resume=False)
        self.columns = [*self.columns, name]
        self.rows = [{**row, name: row["id"]} for row in self.rows]
        self.note()

    def rollback(self, draw: float) -> None:
        version = 1 + int(draw * 97) % len(self.versions)
        ld.rollback(self.place, version)
        self.rows, self.columns = list(self.versions[version][0]), list(self.versions[version][1])
        self.note()

    def check(self) -> None:
        for version, (rows, _) in self.versions.items():
            assert opened(self.place, version=version)[:] == rows
        assert [found.num_rows for found in ld.versions(self.place)] == [len(rows) for rows, _ in self.versions.values()]
        assert (faults(self.place), missing_files(self.place)) == ([], [])


_draws = st.floats(0, 1)
_changes: st.SearchStrategy[tuple[str, Callable[[_Model], None]]] = st.one_of(
    st.integers(1, 7).map(lambda count: (f"append({count})", lambda model: model.append(count))),
    st.integers(1, 7).map(lambda count: (f"overwrite({count})", lambda model: model.overwrite(count))),
    _draws.map(lambda draw: (f"delete({draw})", lambda model: model.delete(draw, by_function=False))),
    _draws.map(lambda draw: (f"delete_by_function({draw})", lambda model: model.delete(draw, by_function=True))),
    _draws.map(lambda draw: (f"update({draw})", lambda model: model.update(draw))),
    _draws.map(lambda draw: (f"rollback({draw})", lambda model: model.rollback(draw))),
    st.just(("add_column", lambda model: model.add_column())),
)


@pytest.mark.parametrize("kind", ["folder", "memory"])
@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(first=st.integers(1, 9), changes=st.lists(_changes, max_size=7))
def test_a_dataset_is_a_list_whatever_is_done_to_it(kind: str, first: int, changes: list[tuple[str, Callable[[_Model], None]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = _Model(folder if kind == "folder" else f"memory://laws-{next(_numbers)}")
        model.overwrite(first)
        for _, change in changes:
            change(model)
        model.check()
        ld.gc(model.place, keep=1, older_than=0)
        assert opened(model.place)[:] == model.rows
        assert faults(model.place) == []


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(
    count=st.integers(1, 12),
    changes=st.lists(st.tuples(st.sampled_from(["append", "delete", "update"]), st.integers(0, 96), st.integers(0, 70_000)), max_size=6),
)
def test_documents_are_a_list_and_their_tokens_one_stream(count: int, changes: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place, range(count), fn=document)
        rows = [document(number) for number in range(count)]
        for kind, place_of_change, value in changes:
            index = place_of_change % len(rows) if rows else 0
            if kind == "append":
                write(place, [value, value + 1], fn=document, mode="append")
                rows += [document(value), document(value + 1)]
            elif kind == "delete" and rows:
                ld.delete_rows(place, [index])
                del rows[index]
            elif rows:
                with ld.dataset_update(place) as update:
                    update[index] = rows[index] = [value] * (value % 3)
                    update.commit()
        assert (documents(place), faults(place)) == (rows, [])
        stream = [token for row in rows for token in row]
        if len(stream) >= 3:
            windows = opened(place, item_loader=ld.TokensLoader(block_size=3))[:]
            assert [int(token) for window in windows for token in window] == stream[: len(stream) // 3 * 3]
