"""Names, lazily imported targets, entry points."""

from importlib.metadata import EntryPoint

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.registry import Registry


class Thing:
    def __init__(self, size=1):
        self.size = size


def function_entry_point(registry):
    registry.register("from_function", Thing, size=5)


def registry(*points):
    return Registry("thing", "leyden.things", discover=lambda group: [EntryPoint(name, value, group) for name, value in points])


def test_a_name_makes_its_thing_with_its_options():
    things = registry()
    things.register("Big", Thing, "a big one", size=9)
    assert things.get("bIG").size == 9
    assert things.get("big", size=10).size == 10
    assert things.entry("big").description == "a big one"
    assert list(things) == ["big"]


def test_a_string_is_imported_at_its_first_use():
    things = registry()
    things.register("lazy", "no_such_module_anywhere:Thing")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        things.get("lazy")
    things.register("ready", "collections:Counter")
    assert things.get("ready") == {}


def test_a_decorator_registers_the_class_below_it():
    things = registry()

    @things.register("made", size=3)
    class Made(Thing):
        pass

    assert isinstance(things.get("made"), Made)


def test_a_taken_name_is_refused_unless_overridden():
    things = registry()
    things.register("one", Thing)
    with pytest.raises(ConfigError, match="registered already"):
        things.register("ONE", Thing)
    things.register("one", Thing, override=True, size=2)
    assert things.get("one").size == 2


def test_an_unknown_name_gets_the_closest_and_all():
    things = registry()
    things.register("alpha", Thing)
    with pytest.raises(ConfigError, match=r"thing='alhpa' is not known. Did you mean 'alpha'\? Registered are 'alpha'"):
        things.get("alhpa")
    with pytest.raises(ConfigError, match="is not known"):
        things.remove("beta")


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_non_empty_string(name):
    with pytest.raises(ConfigTypeError):
        registry().register(name, Thing)


def test_entry_points_are_read_at_the_first_unknown_name_only():
    asked = []
    things = Registry("thing", "leyden.things", discover=lambda group: asked.append(group) or [])
    things.register("one", Thing)
    things.get("one")
    assert asked == []
    assert things.find("two") is None
    assert things.find("three") is None
    assert asked == ["leyden.things"]


def test_an_entry_point_of_a_class_is_registered_under_its_name():
    things = registry(("counter", "collections:Counter"))
    assert things.get("counter") == {}


def test_an_entry_point_of_a_function_registers_what_it_likes(monkeypatch):
    import sys
    import types

    module = types.ModuleType("things_of_others")
    module.add = function_entry_point
    monkeypatch.setitem(sys.modules, "things_of_others", module)
    assert registry(("anything", "things_of_others:add")).get("from_function").size == 5


def test_a_broken_entry_point_is_reported_and_left_out():
    things = registry(("broken", "no_such_module_anywhere:Thing"), ("counter", "collections:Counter"))
    with pytest.warns(UserWarning, match="the entry point 'broken' of leyden.things is left out: ModuleNotFoundError"):
        assert things.get("counter") == {}
    assert "broken" not in things


def test_a_registered_name_wins_over_an_entry_point():
    things = registry(("one", "collections:Counter"))
    things.register("one", Thing)
    things.discover()
    assert isinstance(things.get("one"), Thing)
