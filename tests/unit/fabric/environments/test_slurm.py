"""Slurm: node lists, ports, what does not fit, and queueing again."""

import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.environments import SLURMEnvironment
from leyden.fabric.environments.slurm import first_host
from tests.support.launchers import slurm


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("alpha", "alpha"),
        ("alpha,beta,gamma", "alpha"),
        ("alpha beta gamma", "alpha"),
        ("host[22-28]", "host22"),
        ("host[5-9,1]", "host5"),
        ("host[05-09,12]", "host05"),
        ("host[1,5-9]", "host1"),
        ("host[7]", "host7"),
        ("rack[0-1]node[03-05]-ib,login", "rack0node03-ib"),
        ("machine-name[8-12],other-[1]", "machine-name8"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_node_list(nodes, host):
    assert SLURMEnvironment.resolve_root_node_address(nodes) == host


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
    st.lists(st.integers(0, 999), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_the_first_number_keeps_its_zeros(name, numbers, width):
    written = [f"{number:0{width}}" for number in numbers]
    ranges = ",".join(f"{number}-{int(number) + 3:0{width}}" if index % 2 else number for index, number in enumerate(written))
    assert first_host(f"{name}[{ranges}],zzz") == name + written[0]


def test_address_and_port_come_from_the_job():
    environment = SLURMEnvironment(environ=slurm(0))
    assert (environment.main_address, environment.main_port) == ("gpu07", 15000 + 1987)


def test_the_users_address_and_port_win():
    environment = SLURMEnvironment(environ=slurm(0, MASTER_ADDR="1.2.3.4", MASTER_PORT="77"))
    assert (environment.main_address, environment.main_port) == ("1.2.3.4", 77)


def test_a_step_on_some_of_the_nodes_meets_on_its_own_first():
    assert SLURMEnvironment(environ=slurm(0, SLURM_STEP_NODELIST="gpu12")).main_address == "gpu12"


def test_without_a_job_there_are_defaults():
    environment = SLURMEnvironment(environ={"SLURM_NTASKS": "1"})
    assert (environment.main_address, environment.main_port) == ("127.0.0.1", 12910)
    assert environment.num_devices_hint() == 1


@pytest.mark.parametrize(("job", "port"), [("1", 15001), ("12345", 17345), ("9999", 24999), ("not-a-number", 12910)])
def test_ports_are_made_from_the_last_four_digits(job, port):
    assert SLURMEnvironment(environ=slurm(0, SLURM_JOB_ID=job)).main_port == port


def test_name_and_number_of_the_job():
    assert SLURMEnvironment.job_name(slurm(0)) == "train"
    assert SLURMEnvironment.job_id(slurm(0)) == 4321987
    assert SLURMEnvironment.job_id({}) is None
    assert SLURMEnvironment.job_name({}) is None
    assert SLURMEnvironment.job_id(slurm(0, SLURM_JOB_NAME="bash")) is None


def test_tasks_without_tasks_per_node_are_refused():
    environ = slurm(0)
    del environ["SLURM_NTASKS_PER_NODE"]
    with pytest.raises(StateError, match="Use --ntasks-per-node"):
        SLURMEnvironment(environ=environ)
    SLURMEnvironment(environ={**environ, "SLURM_NTASKS": "1"})


def test_other_devices_than_tasks_are_refused_with_both_products():
    with pytest.raises(ConfigError, match=r"devices=4, but Slurm runs --ntasks-per-node=2: 4 \* 2 processes against 2 \* 2"):
        SLURMEnvironment(environ=slurm(0)).validate_settings(num_devices=4, num_nodes=2)


def test_other_nodes_are_refused_with_both_products():
    with pytest.raises(ConfigError, match=r"num_nodes=4, but Slurm runs --nodes=2: 2 \* 4 processes against 2 \* 2"):
        SLURMEnvironment(environ=slurm(0)).validate_settings(num_devices=2, num_nodes=4)


def test_requeue_is_on_by_default_with_the_documented_signal():
    environment = SLURMEnvironment(environ=slurm(0))
    assert environment.auto_requeue
    assert environment.requeue_signal == signal.SIGUSR1
    assert environment.stop_signals == (signal.SIGUSR1,)
    assert SLURMEnvironment(auto_requeue=False, environ=slurm(0)).stop_signals == ()


class Scontrol:
    """Stands in for `subprocess.run`."""

    def __init__(self, returncode=0, error=None):
        self.returncode, self.error, self.commands = returncode, error, []

    def __call__(self, command, **options):
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        return subprocess.CompletedProcess(command, self.returncode, "", "Invalid job id specified")


@pytest.mark.parametrize(
    ("more", "name"),
    [({}, "4321987"), ({"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}, "40_3")],
    ids=["job", "array"],
)
def test_rank_zero_puts_the_job_back_into_the_queue(more, name):
    scontrol = Scontrol()
    assert SLURMEnvironment(environ=slurm(0, **more)).requeue(scontrol)
    assert scontrol.commands == [["scontrol", "requeue", name]]


def test_other_ranks_leave_it_to_rank_zero():
    scontrol = Scontrol()
    assert not SLURMEnvironment(environ=slurm(1)).requeue(scontrol)
    assert scontrol.commands == []


@pytest.mark.parametrize(
    ("scontrol", "reason"),
    [
        (Scontrol(returncode=1), "Invalid job id specified"),
        (Scontrol(error=FileNotFoundError("no scontrol here")), "no scontrol here"),
        (Scontrol(error=subprocess.TimeoutExpired("scontrol", 60)), "timed out"),
    ],
    ids=["refused", "not installed", "hangs"],
)
def test_a_failure_to_queue_again_is_logged(scontrol, reason, caplog):
    assert not SLURMEnvironment(environ=slurm(0)).requeue(scontrol)
    assert "not queued again" in caplog.text
    assert reason in caplog.text


def test_without_a_job_nothing_is_queued(caplog):
    environ = slurm(0)
    del environ["SLURM_JOB_ID"]
    scontrol = Scontrol()
    assert not SLURMEnvironment(environ=environ).requeue(scontrol)
    assert scontrol.commands == []
    assert "no Slurm job" in caplog.text
