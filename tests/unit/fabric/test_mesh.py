import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, UnavailableError
from leyden.fabric.mesh import Mesh, MeshSpec


def test_the_axis_of_minus_one_takes_the_rest():
    assert MeshSpec(tp=2).sizes(8) == {"pp": 1, "dp_replicate": 1, "dp_shard": 4, "cp": 1, "tp": 2}


def test_two_axes_of_minus_one_are_refused():
    with pytest.raises(ConfigError, match=r"only one axis may be -1, not 'dp_replicate', 'dp_shard'"):
        MeshSpec(dp_replicate=-1).sizes(8)


@pytest.mark.parametrize("size", [0, -2, 1.5, True])
def test_a_size_that_is_no_count_is_refused(size):
    with pytest.raises(ConfigError, match="at least 1"):
        MeshSpec(tp=size).sizes(8)


def test_sizes_that_do_not_divide_the_ranks_name_both_numbers():
    with pytest.raises(UnavailableError, match=r"multiple of 3 ranks, but this run has 8"):
        MeshSpec(tp=3).sizes(8)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_coordinates_number_the_ranks_row_by_row(replicate, shard, cp, tp):
    spec = MeshSpec(dp_replicate=replicate, dp_shard=shard, cp=cp, tp=tp)
    world = replicate * shard * cp * tp
    axes = spec.sizes(world)
    assert math.prod(axes.values()) == world
    for rank in range(world):
        mesh = Mesh(axes, rank=rank)
        assert mesh.coordinate("dp") == mesh.coordinate("dp_replicate") * shard + mesh.coordinate("dp_shard")
        assert rank == (mesh.coordinate("dp") * cp + mesh.coordinate("cp")) * tp + mesh.coordinate("tp")


def test_an_axis_of_one_rank_has_no_group():
    mesh = Mesh({"dp_replicate": 1})
    assert [mesh.size(name) for name in ("dp", "dp_cp", "tp", "pp")] == [1, 1, 1, 1]
    assert mesh.group("dp") is None


def test_an_unknown_axis_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match=r"Did you mean 'dp_shard'"):
        Mesh({"dp_shard": 2}).size("dp_shrad")


def test_the_description_leaves_out_axes_of_one_rank():
    assert Mesh({"dp_replicate": 1, "dp_shard": 4, "tp": 2}).describe() == {"axes": ["dp_shard", "tp"], "sizes": [4, 2]}
