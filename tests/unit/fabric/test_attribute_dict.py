import pytest

from leyden.fabric.attribute_dict import AttributeDict


def test_keys_are_attributes_both_ways():
    state = AttributeDict(step=1)
    state.step += 1
    state["name"] = "a"
    assert state == {"step": 2, "name": "a"}
    del state.name
    assert "name" not in state


def test_a_missing_attribute_names_the_closest():
    with pytest.raises(AttributeError, match=r"Missing attribute 'stpe'\. Did you mean 'step'"):
        AttributeDict(step=1).stpe  # noqa: B018 - the access is the test
