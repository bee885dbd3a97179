"""No launcher: fabric starts the ranks of this node."""

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.environments import LightningEnvironment


def test_alone_on_this_machine_by_default():
    environment = LightningEnvironment(environ={})
    assert not environment.creates_processes_externally
    assert (environment.main_address, environment.main_port) == ("127.0.0.1", 0)
    assert (environment.world_size(), environment.global_rank(), environment.local_rank(), environment.node_rank()) == (1, 0, 0, 0)
    assert environment.num_devices_hint() is None
    assert environment.num_nodes_hint() is None


def test_fabric_sets_world_and_rank():
    environment = LightningEnvironment(environ={})
    environment.set_world_size(8)
    environment.set_global_rank(5)
    assert (environment.world_size(), environment.global_rank()) == (8, 5)


@pytest.mark.parametrize(
    ("environ", "node"),
    [({"NODE_RANK": "2"}, 2), ({"GROUP_RANK": "1"}, 1), ({"NODE_RANK": "2", "GROUP_RANK": "1"}, 2)],
    ids=["NODE_RANK", "GROUP_RANK", "both"],
)
def test_the_node_is_found_in_this_order(environ, node):
    assert LightningEnvironment(environ=environ).node_rank() == node


def test_a_local_rank_says_that_the_ranks_exist():
    environment = LightningEnvironment(environ={"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "7"})
    assert environment.creates_processes_externally
    assert (environment.local_rank(), environment.num_devices_hint()) == (1, 2)
    assert (environment.main_address, environment.main_port) == ("a", 7)


def test_several_nodes_need_one_port():
    with pytest.raises(ConfigError, match="MASTER_PORT is not set"):
        LightningEnvironment(environ={}).validate_settings(num_devices=2, num_nodes=2)
    LightningEnvironment(environ={"MASTER_PORT": "29400"}).validate_settings(num_devices=2, num_nodes=2)


def test_a_node_outside_of_the_run_is_refused():
    with pytest.raises(ConfigError, match="NODE_RANK=2, but num_nodes=2"):
        LightningEnvironment(environ={"MASTER_PORT": "1", "NODE_RANK": "2"}).validate_settings(num_devices=1, num_nodes=2)


def test_a_local_rank_outside_of_the_node_is_refused():
    with pytest.raises(ConfigError, match="LOCAL_RANK=2, but devices=2"):
        LightningEnvironment(environ={"LOCAL_RANK": "2"}).validate_settings(num_devices=2, num_nodes=1)
    LightningEnvironment(environ={"LOCAL_RANK": "2"}).validate_settings(num_devices=1, num_nodes=1)  # one device inside a rank


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "MASTER_PORT"])
def test_a_variable_that_is_no_number_is_named(name):
    environment = LightningEnvironment(environ={name: "x"})
    with pytest.raises(ConfigError, match=f"{name}='x' should be a whole number"):
        [environment.local_rank(), environment.node_rank(), environment.main_port]


def test_teardown_takes_the_world_size_out():
    environ = {"WORLD_SIZE": "4", "RANK": "1"}
    LightningEnvironment(environ=environ).teardown()
    assert environ == {"RANK": "1"}
