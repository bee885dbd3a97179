from typing import Any

import pytest

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.loading.cursor import KINDS, Cursor, Kind


def cursor(kind: Kind = "map", **changes: Any) -> Cursor:
    return Cursor(**{"kind": kind, "length": 10, "global_batch": 4, "seed": 1, "world_size": 2, **changes})


def inside(kind: Kind = "map", **changes: Any) -> dict[str, Any]:
    """Return the state of a cursor in epoch 1 after two batches."""
    saved = cursor(kind, **changes)
    saved.begin()
    saved.begin()
    saved.advance(4)
    saved.advance(4)
    return saved.state_dict()


def test_epochs_are_counted_from_zero_by_their_beginnings() -> None:
    one = cursor()
    seen = []
    for _ in range(3):
        assert not one.begin()
        seen.append(one.epoch)
        one.advance(4)
        one.finish()
    assert seen == [0, 1, 2]


def test_leaving_an_epoch_early_starts_the_next_one() -> None:
    one = cursor()
    one.begin()
    one.advance(4)
    assert not one.begin()
    assert (one.epoch, one.batches, one.samples) == (1, 0, 0)


def test_a_loaded_position_is_kept_once() -> None:
    one = cursor()
    assert one.load_state_dict(inside())
    assert one.begin()
    assert (one.epoch, one.batches, one.samples) == (1, 2, 8)
    assert not one.begin()
    assert (one.epoch, one.batches) == (2, 0)


def test_the_end_of_an_epoch_loads_as_the_beginning_of_the_next() -> None:
    saved = cursor()
    saved.begin()
    saved.advance(4)
    saved.finish()
    one = cursor()
    one.load_state_dict(saved.state_dict())
    assert not one.begin()
    assert one.epoch == 1


def test_a_loaded_position_can_be_saved_again_before_it_is_used() -> None:
    one = cursor()
    one.load_state_dict(inside())
    assert one.state_dict() == inside()


def test_setting_the_same_epoch_keeps_a_resumed_position_and_another_drops_it() -> None:
    one = cursor()
    one.load_state_dict(inside())
    one.set_epoch(1)
    assert one.begin()
    one.load_state_dict(inside())
    one.set_epoch(5)
    assert not one.begin()
    assert one.epoch == 5


def test_setting_an_epoch_is_what_the_next_one_is_called() -> None:
    one = cursor()
    one.begin()
    one.set_epoch(0)
    one.begin()
    assert one.epoch == 0
    with pytest.raises(ConfigError, match="count from 0"):
        one.set_epoch(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_another_world_or_batch_size(kind: Kind) -> None:
    one = cursor(kind, world_size=3, global_batch=6)
    if kind in ("map", "stateful"):
        assert one.load_state_dict(inside(kind))
        assert one.samples == 8
    else:
        with pytest.raises(StateError, match=r"2 ranks and a global batch of 4; here are 3 ranks and a global batch of 6"):
            one.load_state_dict(inside(kind))
        assert (one.epoch, one.batches) == (0, 0), "a refused state has changed something"


@pytest.mark.parametrize("kind", KINDS)
def test_between_epochs_any_world_size_will_do(kind: Kind) -> None:
    saved = cursor(kind)
    saved.begin()
    saved.finish()
    assert cursor(kind, world_size=3).load_state_dict(saved.state_dict())


def test_another_length_is_refused_or_starts_the_epoch_again() -> None:
    one = cursor(length=11)
    with pytest.raises(StateError, match="had 10 samples when the position was saved and has 11 now"):
        one.load_state_dict(inside())
    with pytest.warns(UserWarning, match="Epoch 1 starts again"):
        assert not one.load_state_dict(inside(), strict=False)
    assert not one.begin()
    assert (one.epoch, one.batches) == (1, 0)


def test_another_kind_is_refused() -> None:
    with pytest.raises(StateError, match="kind 'replay', this loader is of kind 'map'"):
        cursor().load_state_dict(inside("replay"))


def test_the_saved_seed_is_taken_over() -> None:
    one = cursor(seed=2)
    one.load_state_dict(inside())
    assert one.seed == 1


@pytest.mark.parametrize("state", [{}, {"format": 1}, {"format": 1, "kind": "other"}, [], None])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises(ConfigError, match="no loader's state"):
        cursor().load_state_dict(state)


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="has format 2; this version reads 1"):
        cursor().load_state_dict({**inside(), "format": 2})
