"""What `inspect` says of a dataset, in a terminal, as JSON and as a page that needs no network."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leyden.core.errors import NotFoundError
from leyden.data.format.column import bytes_column_of
from leyden.data.format.schema import Schema
from leyden.data.interop.columns import fixed_column, list_column
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.tools.facts import thumbnail
from leyden.data.tools.inspect import inspect
from leyden.data.tools.sheet import histogram, sheet


def leaf(name: str, kind: str, **facts: Any) -> dict[str, Any]:
    return {"kind": "leaf", "name": name, "type": kind, "nullable": False, **facts}


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((300, 400, 3), i, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = [leaf("id", "int"), leaf("image", "image"), leaf("list", "list", dtype="int64"), leaf("text", "str")]
    tree = {"kind": "dict", "keys": [node["name"] for node in nodes], "children": nodes}
    columns = [
        fixed_column("int64", np.arange(40)),
        bytes_column_of([png(i) for i in range(40)]),
        list_column("int64", np.arange(40), np.arange(41)),
        bytes_column_of([f"<b>{i}</b>".encode() for i in range(40)]),
    ]
    writer = LitdataWriter(tree, Schema.from_json(tree).leaves, LitdataSettings(chunk_size=15))
    chunks = writer.add(columns) + writer.finish()
    for chunk in chunks:
        (tmp_path / chunk.name).write_bytes(chunk.data)
    (tmp_path / "index.json").write_bytes(writer.index([chunk.entry for chunk in chunks]))
    return tmp_path


def test_everything_is_counted(folder: Path) -> None:
    found = inspect(str(folder), rows=2)
    report = json.loads(json.dumps(found.to_json()))
    assert (report["format"], report["num_rows"], report["num_chunks"], report["num_blocks"]) == ("litdata", 40, 3, 3)
    facts = {each["name"]: each for each in report["leaves"]}
    assert facts["id"]["values"] == {"least": 0, "mean": 19.5, "most": 39}
    assert facts["text"]["bytes"]["least"] == 8
    assert report["first"][1]["id"] == "1"
    assert report["first"][1]["image"].startswith("image, ")
    lines = list(found.lines())
    assert lines[0].startswith(f"{folder}: litdata, version 1, 40 rows in 3 file(s)")
    assert len(lines) == 1 + 4 + 2


class Tags(HTMLParser):
    """Counts tags, and fails if they do not close."""

    VOID = frozenset({"meta", "img", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.VOID or self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(folder: Path, tmp_path: Path) -> None:
    inspect(str(folder), html=tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert len(images) == 24
    assert all(attributes["alt"] and str(attributes["src"]).startswith("data:image/jpeg;base64,") for attributes in images)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert "&lt;b&gt;0&lt;/b&gt;" in page
    assert "<b>" not in page
    assert {tag for tag, _ in tags.seen} >= {"svg", "rect", "table", "section"}


def test_thumbnails_are_small_and_damaged_images_are_left_out() -> None:
    assert max(Image.open(io.BytesIO(thumbnail("image", png(3)))).size) == 160
    assert thumbnail("image", b"no image") == b""
    assert thumbnail("jpeg_array", b"\0\0\0\0") == b""


def test_a_histogram_says_its_range() -> None:
    drawn = histogram("values", np.array([3.0, 3.0, 5.0]))
    assert drawn.count("<rect") == 2
    assert "values from 3 to 5, mean 3.66667" in drawn


def test_equal_numbers_need_no_histogram(folder: Path) -> None:
    found = inspect(str(folder))
    found.leaves[0].numbers = [np.full(5, 3.0)]
    assert "all values are 3<" in sheet(found)


def test_an_empty_dataset_has_a_page_too(tmp_path: Path) -> None:
    config = {"compression": None, "data_format": ["int"], "data_spec": None, "encryption": None, "item_loader": "PyTreeLoader"}
    (tmp_path / "index.json").write_text(json.dumps({"chunks": [], "config": config}))
    found = inspect(str(tmp_path))
    assert found.num_rows == 0
    assert "There are no rows." in sheet(found)


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no dataset at"):
        inspect(str(tmp_path))
