"""What `devices=` may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.accelerators.device_list import device_ids, normalise, only_device, process_count


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("auto", "auto"),
        ("Auto", "auto"),
        (3, 3),
        ("3", 3),
        (-1, -1),
        ("-1", -1),
        ("0,2", [0, 2]),
        (" 0 , 2 ", [0, 2]),
        ("0,", [0]),
        ([2], [2]),
        ((0, 1), [0, 1]),
    ],
    ids=repr,
)
def test_every_documented_way_of_writing_devices_is_understood(written, meant):
    assert normalise(written) == meant


@pytest.mark.parametrize("many", [1, 2, 64], ids=repr)
def test_a_cpu_runs_any_number_of_processes(many):
    assert process_count(many) == process_count(str(many)) == many


def test_auto_is_one_process_on_a_cpu():
    assert process_count("auto") == 1


@pytest.mark.parametrize("devices", [-1, "-1", [0, 1], "0,2", "1,"], ids=repr)
def test_a_cpu_takes_a_positive_count_only(devices):
    with pytest.raises(ConfigTypeError, match="should be an int > 0"):
        process_count(devices)


@pytest.mark.parametrize("devices", ["auto", -1, "-1"], ids=repr)
def test_all_gpus_are_taken(devices):
    assert device_ids(devices, 3, "cuda") == [0, 1, 2]


@pytest.mark.parametrize(("devices", "ids"), [(2, [0, 1]), ("2", [0, 1]), ([2, 0], [2, 0]), ("2,0", [2, 0]), ("1,", [1])], ids=repr)
def test_gpus_are_taken_by_number_or_by_id(devices, ids):
    assert device_ids(devices, 3, "cuda") == ids


@pytest.mark.parametrize("devices", [4, "4", [0, 3], "3,"], ids=repr)
def test_absent_gpus_are_refused_with_those_present(devices):
    with pytest.raises(ConfigError, match=r"sees \[0, 1, 2\]: \[3\] are not there"):
        device_ids(devices, 3, "cuda")


def test_a_gpu_named_twice_is_refused():
    with pytest.raises(ConfigError, match=r"names a device twice.*devices=\[0, 1\]"):
        device_ids([1, 0, 1], 3, "cuda")


@pytest.mark.parametrize("devices", ["auto", 1, "1", -1, [0], "0,"], ids=repr)
def test_a_mac_has_one_gpu(devices):
    assert only_device(devices, "mps") == [0]


@pytest.mark.parametrize("devices", [2, [1], [0, 1], "2"], ids=repr)
def test_more_than_one_gpu_on_a_mac_is_refused(devices):
    with pytest.raises(ConfigError, match="has one device"):
        only_device(devices, "mps")


@given(st.lists(st.integers(0, 15), min_size=1, max_size=8, unique=True))
def test_a_list_and_its_text_mean_the_same(ids):
    text = ",".join(map(str, ids)) + ","
    assert device_ids(text, 16, "cuda") == device_ids(ids, 16, "cuda") == ids


@given(
    st.one_of(st.integers(-5, 20), st.text(max_size=6), st.lists(st.integers(-3, 20), max_size=4), st.booleans(), st.floats(), st.none())
)
def test_anything_is_understood_or_refused_by_name(devices):
    refusal = None
    try:
        ids = device_ids(devices, 4, "xpu")
    except ConfigError as error:
        ids, refusal = [], str(error)
    if refusal is None:
        assert ids
        assert set(ids) <= {0, 1, 2, 3}
    else:
        assert repr(devices) in refusal
