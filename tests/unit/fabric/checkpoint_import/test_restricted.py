"""The restricted unpickler: what it makes values of, what stays opaque, and that nothing ever runs."""

import argparse
import contextlib
import copyreg
import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import CorruptDataError, NotFoundError, StateError
from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.checkpoint import restricted
from leyden.fabric.checkpoint.opaque import Opaque, opaque_values, warn_of_opaque
from tests.support.hostile_pickles import Call, Ran, calls, global_, nothing_runs, programs, text

GOLDEN = Path(__file__).parents[3] / "golden" / "lightning_2_6"


class Custom:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha


class CustomList(list):  # type: ignore[type-arg]
    pass


class CustomDict(dict):  # type: ignore[type-arg]
    pass


def read(value: Any, protocol: int = 4) -> Any:
    return restricted.read_pickle(pickle.dumps(value, protocol), "here")


def saved(value: Any, tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "file.pt"
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text", b"bytes", (1, (2,))]},
        OrderedDict(b=1, a=2),
        {1, 2},
        frozenset({3}),
        bytearray(b"xyz"),
        2 + 3j,
        torch.Size([2, 3]),
        torch.device("cuda", 1),
        torch.bfloat16,
        argparse.Namespace(lr=0.1, inner=argparse.Namespace(steps=[1])),
        np.float64(0.5),
        np.int32(7),
    ],
    ids=repr,
)
def test_plain_values_come_back_under_every_protocol(value: Any, protocol: int) -> None:
    result = read(value, protocol)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i8", "?", "U3", "O"])
def test_arrays_come_back(dtype: str, protocol: int) -> None:
    array = np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)
    result = read(np.asfortranarray(array), protocol)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_paths_become_strings() -> None:
    assert read({"root": PurePosixPath("/data/digits")}) == {"root": "/data/digits"}


def test_a_default_dictionary_keeps_its_factory() -> None:
    value: defaultdict[str, int] = defaultdict(int, a=3)
    result = read(value, 2)
    assert result == {"a": 3}
    assert result["new"] == 0


def test_a_default_dictionary_with_a_foreign_factory_has_none() -> None:
    result = read(defaultdict(Custom))
    assert type(result) is defaultdict
    assert result.default_factory is None


def test_an_attribute_dictionary_of_lightning_keeps_its_attributes() -> None:
    pickled = b"\x80\x02" + global_("lightning.fabric.utilities.data", "AttributeDict") + b")\x81(" + text("lr") + b"K\x01u."
    result = restricted.read_pickle(pickled, "here")
    assert type(result) is AttributeDict
    assert result.lr == 1
    with pytest.raises(AttributeError, match="'lr'"):
        _ = result.absent


def test_a_state_dict_keeps_the_versions_of_its_modules(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert restricted.read_torch(saved(state, tmp_path))._metadata == state._metadata


@pytest.mark.parametrize(
    ("value", "name", "args", "state"),
    [
        (Custom(0.2), "Custom", (), {"alpha": 0.2}),
        (Custom, "Custom", None, None),
        (eval, "builtins.eval", None, None),
        (Call(os.system, "echo"), "posix.system", ("echo",), None),
        (range(3), "builtins.range", (0, 3, 1), None),
    ],
    ids=["object", "class", "function", "call", "builtin"],
)
def test_everything_else_is_opaque(value: Any, name: str, args: Any, state: Any) -> None:
    result = read([value])[0]
    assert isinstance(result, Opaque)
    assert result.name.endswith(name)
    assert result.args == args
    assert result.state == state


def test_elements_and_items_of_unknown_containers_are_recorded() -> None:
    some, other = read([CustomList([1, 2]), CustomDict(a=1)])
    assert some.items == [1, 2]
    assert other.items == [("a", 1)]


def test_objects_pickled_the_old_way_are_recorded_by_their_class() -> None:
    assert read(Custom(1.0), 0).name.endswith("Custom")


def test_shared_and_cyclic_objects_stay_so() -> None:
    shared = [1]
    cyclic: dict[str, Any] = {"a": shared, "b": shared, "space": argparse.Namespace()}
    cyclic["self"] = cyclic
    cyclic["space"].up = cyclic
    result = read(cyclic)
    assert result["a"] is result["b"]
    assert result["self"] is result
    assert result["space"].up is result


def test_an_opaque_value_says_its_name_and_place() -> None:
    tree = {"hparams": argparse.Namespace(augment=Opaque("research.Mixup")), "list": [Opaque("a.b")]}
    assert [(place, value.name) for place, value in opaque_values(tree)] == [
        ("['hparams'].augment", "research.Mixup"),
        ("['list'][0]", "a.b"),
    ]
    with pytest.warns(UserWarning, match=r"2 value\(s\).*research.Mixup at \['hparams'\].augment; a.b at"):
        warn_of_opaque(tree, "file.ckpt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_tensors_come_back_exactly(tmp_path: Path, legacy: bool, is_mapped: bool) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {
        "plain": base,
        "view": base[1:, ::2],
        "transposed": base.T,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(True),
        "bf16": base.bfloat16(),
        "float8": base.to(torch.float8_e4m3fn).view(torch.uint8),
        "conj": torch.tensor([1 + 2j]).conj(),
        "parameter": torch.nn.Parameter(base.clone()),
    }
    if not legacy:  # torch itself cannot read these back from the old format
        tensors["uint16"] = torch.tensor([1, 2, 65535], dtype=torch.uint16)
    result = restricted.read_torch(saved(tensors, tmp_path, _use_new_zipfile_serialization=not legacy), is_mapped=is_mapped)
    for name, tensor in tensors.items():
        assert result[name].dtype == tensor.dtype, name
        assert result[name].shape == tensor.shape, name
        assert torch.equal(result[name], tensor.detach()), name
    assert result["view"].untyped_storage().data_ptr() == result["plain"].untyped_storage().data_ptr()


def test_sparse_and_meta_tensors_come_back(tmp_path: Path) -> None:
    sparse = torch.eye(3).to_sparse()
    result = restricted.read_torch(saved({"sparse": sparse, "meta": torch.empty(2, 3, device="meta")}, tmp_path))
    assert torch.equal(result["sparse"].to_dense(), torch.eye(3))
    assert result["meta"].is_meta
    assert result["meta"].shape == (2, 3)


def test_a_tensor_with_attributes_of_its_own_comes_back_without_them(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    tensor.note = "mine"  # type: ignore[attr-defined]
    result = restricted.read_torch(saved([tensor], tmp_path))[0]
    assert torch.equal(result, torch.ones(2))
    assert not hasattr(result, "note")


HOSTILE = {
    "os.system": pickle.dumps(Call(os.system, "echo hostile")),
    "eval": pickle.dumps(Call(eval, "1/0")),
    "nested": pickle.dumps(Call(eval, Call(getattr, Call(__import__, "os"), "system"))),
    "absent module": b"\x80\x04" + global_("hostile_absent", "f") + b")R.",
    "inst": b"(" + text("echo") + b"ios\nsystem\n.",
    "obj": b"(" + global_("os", "system") + text("echo") + b"o.",
    "newobj_ex": b"\x80\x04" + global_("hostile_canary", "Bomb") + b")}\x92.",
    "build": b"\x80\x04" + global_("hostile_canary", "Bomb") + b")\x81}b.",
    "nested torch": b"\x80\x04" + global_("torch.storage", "_load_from_bytes") + pickle.SHORT_BINBYTES + b"\x03abc\x85R.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_is_recorded_and_nothing_runs(data: bytes) -> None:
    with nothing_runs():
        result = restricted.read_pickle(data, "here")
    assert isinstance(result, Opaque)


@pytest.mark.parametrize("data", [HOSTILE["os.system"], HOSTILE["eval"], HOSTILE["absent module"], HOSTILE["build"]])
def test_the_watch_notices_a_reader_that_runs_them(data: bytes) -> None:
    with pytest.raises(Ran), nothing_runs():
        pickle._loads(data)  # type: ignore[attr-defined]


REFUSED = {
    "state on a name": b"\x80\x04" + global_("torch._utils", "_rebuild_tensor_v2") + b"}" + text("__code__") + b"Nsb.",
    "call of a value": b"\x80\x04K\x01)R.",
    "call of a result": b"\x80\x04" + global_("os", "system") + b")R)R.",
    "item of a name": b"\x80\x04" + global_("os", "environ") + text("PATH") + b"Ns.",
    "element of a tuple": b"\x80\x04)K\x01a.",
    "extension code": b"\x80\x04\x82\x01.",
    "tensor of no storage": b"\x80\x04" + global_("torch._utils", "_rebuild_tensor_v2") + b"(NK\x00)))N\x89tR.",
    "truncated": pickle.dumps([1, 2, 3])[:-2],
    "no pickle": b"hello",
    "empty": b"",
    "deeply nested": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "huge memo": b"\x80\x04]r\xff\xff\xff\xff(" + b"e",
    "own argument": b"\x80\x04" + global_("torch", "Size") + b"]\x94\x85R\x94h\x00h\x01a0h\x01.",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_nonsense_is_refused_by_name(data: bytes) -> None:
    with nothing_runs(), pytest.raises(CorruptDataError, match=r"^file\.ckpt cannot be read.*nothing in it was run"):
        restricted.read_pickle(data, "file.ckpt")


def test_extension_codes_of_the_reader_are_not_followed() -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(CorruptDataError, match="extension code 240"):
            restricted.read_pickle(b"\x80\x04\x82\xf0.", "here")
    finally:
        copyreg.remove_extension("os", "system", 240)


@given(programs)
def test_law_no_program_imports_or_calls(data: bytes) -> None:
    with nothing_runs(), contextlib.suppress(CorruptDataError):
        restricted.read_pickle(data, "here")


@given(calls)
def test_law_no_calls_are_made(data: bytes) -> None:
    with nothing_runs(), contextlib.suppress(CorruptDataError):
        assert isinstance(restricted.read_pickle(data, "here"), list)


@given(st.data())
def test_law_a_mutated_checkpoint_is_read_or_refused(data: st.DataObject) -> None:
    with zipfile.ZipFile(GOLDEN / "trainer.ckpt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = bytearray(parts["archive/data.pkl"])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(2, len(pickled) - 1))
        pickled[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b"Rbcio\x81\x82\x92\x93(t.")))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(pickled) if name == "archive/data.pkl" else content)
    with nothing_runs(), contextlib.suppress(CorruptDataError):
        restricted.read_torch_bytes(stream.getvalue(), "here")


@given(st.data())
def test_law_mutated_metadata_is_read_or_refused(data: st.DataObject) -> None:
    pickled = bytearray((GOLDEN / "dcp" / ".metadata").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        pickled[data.draw(st.integers(2, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    with nothing_runs(), contextlib.suppress(CorruptDataError):
        restricted.read_pickle(bytes(pickled), "here")


def rewritten(path: Path, change: dict[str, bytes | None], extra: dict[str, bytes] | None = None) -> Path:
    """Write the archive anew with some records changed, left out (`None`) or added."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {**parts, **(extra or {})}.items():
            kind = name.partition("/")[2]
            if change.get(kind, content) is not None:
                archive.writestr(name, change.get(kind, content))
    return target


@pytest.mark.parametrize("is_mapped", [True, False])
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path, is_mapped: bool) -> None:
    path = saved({"a": torch.arange(4.0)}, tmp_path)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("file/data.pkl")
    longer = pickled.replace(b"K\x04tq", b"J\x00\x00\x10\x00tq", 1).replace(b"K\x04\x85", b"J\x00\x00\x10\x00\x85", 1)
    assert longer != pickled
    with pytest.raises(CorruptDataError):
        restricted.read_torch(rewritten(path, {"data.pkl": longer}), is_mapped=is_mapped)


def test_a_torchscript_archive_is_never_handed_to_its_loader(tmp_path: Path) -> None:
    path = saved({"a": 1}, tmp_path)
    with pytest.raises(CorruptDataError, match="TorchScript"):
        restricted.read_torch(rewritten(path, {}, {"file/constants.pkl": b"\x80\x02)."}))


@pytest.mark.parametrize("length", [0, 3, 100, 400])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = saved({"a": torch.ones(100)}, tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptDataError, match="cannot be read"):
        restricted.read_torch(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        restricted.read_torch(tmp_path / "absent.pt")


def test_forbidding_pickle_modules_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(StateError, match="unset the variable"):
        restricted.read_torch(saved({"a": 1}, tmp_path))
