"""Text, JSON, files, TIFF, meshes, PDF and NIfTI come back as their libraries read them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.data.codecs.json import is_json
from leyden.data.codecs.registry import ENCODED, PLAIN, UNCOMPRESSED, decoder
from leyden.data.codecs.serializer import Serializer
from leyden.data.errors import SchemaError
from leyden.data.types import Encoded, File, Json, Mesh, Nifti, Pdf, Stored, Text, Tiff

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back_alike(value: Any) -> None:
    assert is_json(value)
    assert decoder("json")(memoryview(Json(value).encode())) == value


def test_half_a_surrogate_pair_is_escaped_in_json() -> None:
    data = Json({"é": "\ud800"}).encode()
    assert (data.decode(), decoder("json")(data)) == ('{"\\u00e9":"\\ud800"}', {"é": "\ud800"})
    assert decoder("json")(b'["\xed\xa0\x80"]') == ["\ud800"]  # as it was once stored


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, {"a": {3}}, [object()], np.float64(1.0)])
def test_what_json_would_change_is_refused(value: Any) -> None:
    with pytest.raises(SchemaError, match="turn tuples into lists"):
        Json(value).encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_alike(text: str) -> None:
    assert decoder("text")(memoryview(Text(text=text).encode())) == text


def test_text_of_a_file_must_be_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("grün", encoding="utf-8")
    assert decoder("text")(Text(path=path).encode()) == "grün"
    with pytest.raises(ConfigError, match="not UTF-8"):
        Text(bytes=b"\xff").encode()


def test_files_come_back_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\0abc")
    assert decoder("file")(memoryview(File(path=str(path)).encode())) == b"\0abc"
    assert File(bytes=memoryview(b"x")).encode() == b"x"  # type: ignore[arg-type]
    assert File(bytes=b"").encode() == b""


def test_tiff_comes_back_as_an_array() -> None:
    pytest.importorskip("tifffile")
    array = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    data = Tiff(array=array).encode()
    assert np.array_equal(decoder("tiff")(data), array)
    assert Tiff(bytes=data).encode() == data


def test_mesh_comes_back_for_each_file_type() -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    for file_type in ("glb", "ply", "stl"):
        data = Mesh(mesh=box, file_type=file_type).encode()
        read = decoder("mesh")(data)
        assert read.bounds.tolist() == box.bounds.tolist()
        assert Mesh(bytes=data).encode() == data
    with pytest.raises(ConfigError, match="'glb', 'ply' and 'stl'"):
        Mesh(mesh=box, file_type="obj").encode()


def test_nifti_comes_back_plain_and_gzipped(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    read = decoder("nifti")(Nifti(array=volume, affine=affine).encode())
    assert np.array_equal(np.asarray(read.dataobj), volume)
    assert np.array_equal(read.affine, affine)
    path = tmp_path / "x.nii.gz"
    nibabel.save(read, path)
    loaded = nibabel.load(path)
    assert Nifti(image=loaded).encode() == path.read_bytes()
    assert np.array_equal(np.asarray(decoder("nifti")(Nifti(path=path).encode()).dataobj), volume)
    loaded.header["descrip"] = b"edited"
    assert decoder("nifti")(Nifti(image=loaded).encode()).header["descrip"] == b"edited"
    assert Nifti(array=volume).encode() == Nifti(array=volume, affine=np.eye(4)).encode()


def one_page() -> bytes:
    """Return a PDF with an empty page: a table of five objects and where they lie."""
    bodies = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>", "<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>"]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    return out + f"xref\n0 4\n0000000000 65535 f \n{table}trailer<</Size 4/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF".encode()


def test_pdf_comes_back_as_a_document() -> None:
    pytest.importorskip("pdfplumber")
    with decoder("pdf")(memoryview(one_page())) as document:
        assert [page.width for page in document.pages] == [99]
        assert Pdf(pdf=document).encode() == one_page()
    assert Pdf(bytes=one_page()).encode() == one_page()
    with pytest.raises(ConfigError, match="Pass an open pdfplumber document"):
        Pdf(pdf=object()).encode()


def test_every_wrapper_has_a_decoder() -> None:
    wrappers = {kind.leaf_type for parent in (Encoded, Stored) for kind in parent.__subclasses__() if kind is not Stored} - {"array"}
    assert wrappers == ENCODED
    assert UNCOMPRESSED < ENCODED
    assert ENCODED - set(PLAIN) == {"jpeg", "image", "jpeg_array"}


def test_decoders_travel_to_other_processes() -> None:
    for leaf_type in ("jpeg", "jpeg_array", "text", "json", "pil", "bytes"):
        pickle.loads(pickle.dumps(decoder(leaf_type)))


def test_pickled_leaves_need_trust() -> None:
    with pytest.raises(ConfigError, match="trust=True"):
        decoder("pickle")
    assert decoder("pickle", trust=True)(pickle.dumps({1, 2})) == {1, 2}


class Reversed(Serializer):
    def serialize(self, data: Any) -> tuple[bytes, str | None]:
        return data.encode()[::-1], None

    def deserialize(self, data: bytes) -> Any:
        return data[::-1].decode()

    def can_serialize(self, data: Any) -> bool:
        return isinstance(data, str)


def test_kinds_of_the_users_own_need_their_serializer() -> None:
    assert decoder("custom:reversed", serializers={"reversed": Reversed()})(memoryview(b"cba")) == "abc"
    with pytest.raises(ConfigError, match="serializers="):
        decoder("custom:reversed")
    with pytest.raises(ConfigError, match="hold no encoded bytes"):
        decoder("int")


@pytest.mark.parametrize(("leaf_type", "module"), [("tiff", "tifffile"), ("pdf", "pdfplumber"), ("jpeg", "PIL.Image")])
def test_a_missing_library_is_named_when_the_decoder_is_asked_for(leaf_type: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*leyden\["):
        decoder(leaf_type)


def test_tiff_of_a_picture() -> None:
    pillow = pytest.importorskip("PIL.Image")
    picture = pillow.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert np.array_equal(decoder("tiff")(Tiff(image=picture).encode()), np.asarray(picture))
    buffer = io.BytesIO()
    picture.save(buffer, format="TIFF")
    assert np.array_equal(decoder("tiff")(buffer.getvalue()), np.asarray(picture))
