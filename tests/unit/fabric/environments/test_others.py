"""torchrun, jobs, LSF, MPI, Kubeflow: what is missing or does not fit."""

import socket

import pytest

from leyden.core.errors import ConfigError, MissingDependencyError, StateError
from leyden.core.optional import installed
from leyden.fabric.environments import (
    JobEnvironment,
    KubeflowEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    TorchElasticEnvironment,
)
from tests.support import launchers


def without(environ, *names):
    return {name: value for name, value in environ.items() if name not in names}


def test_torchrun_without_an_address_uses_this_machine_with_a_warning():
    environment = TorchElasticEnvironment(environ=without(launchers.torchrun(0), "MASTER_ADDR", "MASTER_PORT"))
    with pytest.warns(UserWarning, match="MASTER_ADDR is not set"):
        assert environment.main_address == "127.0.0.1"
    with pytest.warns(UserWarning, match="MASTER_PORT is not set"):
        assert environment.main_port == 12910


def test_torchrun_that_does_not_say_its_nodes_is_divided_out():
    environment = TorchElasticEnvironment(environ=without(launchers.torchrun(0), "GROUP_WORLD_SIZE"))
    assert environment.num_nodes_hint() == 2


def test_disagreement_with_torchrun_has_both_products():
    with pytest.raises(ConfigError, match=r"devices=3 \* num_nodes=1 = 3 processes, but torchrun started 4 \(2 per node \* 2 nodes\)"):
        TorchElasticEnvironment(environ=launchers.torchrun(0)).validate_settings(num_devices=3, num_nodes=1)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_missing_rank_variable_is_named(name):
    environment = TorchElasticEnvironment(environ=without(launchers.torchrun(0), name))
    with pytest.raises(ConfigError, match=f"{name} is not set"):
        [environment.global_rank(), environment.world_size(), environment.local_rank()]


def test_a_job_of_one_node_per_rank_variables_only():
    environ = without(launchers.job(3), "GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE")
    environment = JobEnvironment(environ=environ)
    assert (environment.node_rank(), environment.num_nodes_hint(), environment.num_devices_hint()) == (1, 2, 2)


@pytest.mark.parametrize(("kind", "environ"), [(JobEnvironment, launchers.job(0)), (KubeflowEnvironment, launchers.kubeflow(0))])
def test_a_missing_address_is_named(kind, environ):
    with pytest.raises(ConfigError, match="MASTER_ADDR is not set"):
        _ = kind(environ=without(environ, "MASTER_ADDR")).main_address
    with pytest.raises(ConfigError, match="MASTER_PORT is not set"):
        _ = kind(environ=without(environ, "MASTER_PORT")).main_port


@pytest.fixture
def rank_file(tmp_path):
    path = tmp_path / "ranks"
    path.write_text("launch\nb1\nb1\na2\na2\n", encoding="utf-8")
    return str(path)


def test_lsf_address_port_and_nodes(rank_file):
    environment = LSFEnvironment(environ=launchers.lsf(2, rank_file), hostname="a2")
    assert (environment.main_address, environment.main_port) == ("b1", 10000 + 321)
    assert environment.node_rank() == 1  # in the order of the file
    assert environment.num_nodes_hint() == 2


def test_lsf_users_address_and_port_win(rank_file):
    environment = LSFEnvironment(environ={**launchers.lsf(0, rank_file), "MASTER_ADDR": "x", "MASTER_PORT": "5"}, hostname="b1")
    assert (environment.main_address, environment.main_port) == ("x", 5)


def test_lsf_host_outside_of_the_job_is_named(rank_file):
    with pytest.raises(StateError, match="'elsewhere', is not in the rank file"):
        LSFEnvironment(environ=launchers.lsf(0, rank_file), hostname="elsewhere").node_rank()


def test_lsf_rank_file_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        _ = LSFEnvironment(environ=launchers.lsf(0, str(tmp_path / "none"))).main_address
    (tmp_path / "empty").write_text("launch\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="names no host"):
        _ = LSFEnvironment(environ=launchers.lsf(0, str(tmp_path / "empty"))).main_address


def test_mpi_asks_once_and_sorts_its_hosts():
    seats = [("zeta", 40001), ("alpha", 0), ("zeta", 0), ("alpha", 0)]
    communicator = launchers.Communicator(2, seats)
    environment = MPIEnvironment(communicator=communicator, hostname="zeta", environ={})
    assert (environment.main_address, environment.main_port) == ("zeta", 40001)
    assert (environment.local_rank(), environment.node_rank()) == (1, 1)
    assert (environment.num_devices_hint(), environment.num_nodes_hint()) == (2, 2)
    assert communicator.gathered == 1


def test_mpi_rank_zero_offers_a_free_port():
    class Alone(launchers.Communicator):
        def allgather(self, mine):
            return [mine]

    port = MPIEnvironment(communicator=Alone(0, [("here", 0)]), hostname="here", environ={}).main_port
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_mpi_without_mpi4py_says_what_to_install(monkeypatch):
    if installed("mpi4py"):
        import sys

        monkeypatch.setitem(sys.modules, "mpi4py", None)
        monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(MissingDependencyError, match=r"leyden\[mpi\]"):
        MPIEnvironment(environ={})
