import json
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from leyden.core.errors import CorruptDataError, StorageError
from leyden.fabric.checkpoint.layout import Chunk
from leyden.fabric.checkpoint.saved import FileTensor, OpenFiles
from leyden.fabric.checkpoint.tensor_file import CODES, TensorFile, is_holdable, write_tensors

EVERY_DTYPE = {str(dtype).removeprefix("torch."): torch.ones(3, dtype=torch.float32).to(dtype) for dtype in CODES}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    shapes = {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 3), "matrix": torch.randn(3, 4), "view": torch.randn(4, 4).T}
    tensors = {**EVERY_DTYPE, **shapes}
    write_tensors(tmp_path / "a.safetensors", tensors)
    loaded = load_file(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].tolist() == tensor.tolist(), name


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.int8), "c": torch.randn(2).bfloat16()}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"who": "them"})
    with TensorFile(tmp_path / "a.safetensors") as file:
        assert file.metadata == {"who": "them"}
        for name, tensor in tensors.items():
            assert torch.equal(file.read(name), tensor)


def test_size_and_checksum_are_of_the_file(tmp_path: Path) -> None:
    record = write_tensors(tmp_path / "a.safetensors", EVERY_DTYPE, {"aliases": "{}"})
    content = (tmp_path / "a.safetensors").read_bytes()
    assert record.bytes == len(content)
    assert record.crc32 == f"{zlib.crc32(content):08x}"


def test_readers_of_hugging_face_find_the_format(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1)})
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["__metadata__"]["format"] == "pt"
    assert (8 + length) % 64 == 0  # so that a read copies from aligned memory to aligned memory


@given(data=st.data(), shape=st.lists(st.integers(1, 5), max_size=3))
def test_any_box_of_any_cutting_is_read_exactly(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shape: list[int]) -> None:
    """The law of resharding: however a tensor was cut into files, every box of it comes back."""
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    folder = tmp_path_factory.mktemp("cut")
    cuts = [[0, *sorted(data.draw(st.sets(st.integers(1, size - 1), max_size=2))), size] if size > 1 else [0, 1] for size in shape]
    boxes = torch.cartesian_prod(*[torch.arange(len(cut) - 1) for cut in cuts]).reshape(-1, len(shape)).tolist() if shape else [[]]
    chunks = []
    for number, box in enumerate(boxes):
        low = tuple(cut[at] for cut, at in zip(cuts, box, strict=True))
        size = tuple(cut[at + 1] - cut[at] for cut, at in zip(cuts, box, strict=True))
        part = whole[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))]
        write_tensors(folder / f"{number}.safetensors", {"part": part, "noise": torch.ones(3, dtype=torch.int8)})
        chunks.append(Chunk(offset=low, size=size, file=f"{number}.safetensors", key="part"))
    begin = [data.draw(st.integers(0, size - 1)) for size in shape]
    length = [data.draw(st.integers(1, size - at)) for size, at in zip(shape, begin, strict=True)]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    target = torch.full(length, -1.0, dtype=dtype)
    if target.ndim == 2 and data.draw(st.booleans()):
        target = torch.full(length[::-1], -1.0, dtype=dtype).T  # not contiguous
    files = OpenFiles(folder)  # after the last draw, which may end the test
    saved = FileTensor(files, whole.dtype, tuple(shape), chunks, "whole")
    saved.check()
    saved.read_into(target, begin)
    files.close()
    assert torch.equal(target, whole[tuple(slice(at, at + n) for at, n in zip(begin, length, strict=True))].to(dtype))


def test_reading_a_row_leaves_the_rest_of_the_target_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": torch.arange(6.0).reshape(2, 3)})
    target = torch.zeros(3, 3)
    with TensorFile(tmp_path / "a.safetensors") as file:
        file.read_into("a", target[1:2], (1, 0))
    assert target.tolist() == [[0, 0, 0], [3, 4, 5], [0, 0, 0]]


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: int) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": torch.randn(30)})
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:keep])
    with pytest.raises(CorruptDataError, match=r"truncated|damaged"):
        TensorFile(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1]},
        [],
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(CorruptDataError, match="header cannot be read"):
        TensorFile(tmp_path / "a.safetensors")


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        TensorFile(tmp_path / "none.safetensors")


def test_what_the_format_cannot_hold_is_known() -> None:
    assert is_holdable(torch.nn.Parameter(torch.ones(1)))
    assert not is_holdable(torch.ones(2).to_sparse())
    assert not is_holdable(torch.ones(1, dtype=torch.complex128))


def test_index_and_file_must_agree(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"part": torch.ones(2)})
    files = OpenFiles(tmp_path)
    chunk = Chunk(offset=(0,), size=(3,), file="a.safetensors", key="part")
    with pytest.raises(CorruptDataError, match="does not hold 'part' as the index says"):
        FileTensor(files, torch.float32, (3,), (chunk,), "a").check()
    with pytest.raises(CorruptDataError, match="the index holds 2 of 4 elements of 'a'"):
        FileTensor(files, torch.float32, (4,), (Chunk(offset=(0,), size=(2,), file="a.safetensors", key="part"),), "a").check()
    files.close()
