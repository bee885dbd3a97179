"""Which launcher is found, from its variables."""

import pytest

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.fabric.environments import (
    JobEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
    detect_environment,
)
from leyden.fabric.environments import mpi as mpi_module
from tests.support import launchers

TORCHRUN, JOB, SLURM, LSF = launchers.torchrun(0), launchers.job(0), launchers.slurm(0), launchers.lsf(0, "/nowhere")


def detected(environ):
    return type(detect_environment(environ, which=lambda program: None))


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        pytest.param({}, LightningEnvironment, id="nothing"),
        pytest.param({"LOCAL_RANK": "1"}, LightningEnvironment, id="a rank of fabric's own launcher"),
        pytest.param(TORCHRUN, TorchElasticEnvironment, id="torchrun"),
        pytest.param(JOB, JobEnvironment, id="job"),
        pytest.param(SLURM, SLURMEnvironment, id="slurm"),
        pytest.param(LSF, LSFEnvironment, id="lsf"),
        pytest.param({**LSF, **SLURM}, SLURMEnvironment, id="slurm before lsf"),
        pytest.param({**SLURM, **JOB}, JobEnvironment, id="job before slurm"),
        pytest.param({**SLURM, **JOB, **TORCHRUN}, TorchElasticEnvironment, id="torchrun before all"),
        pytest.param({k: v for k, v in JOB.items() if k != "RANK"}, LightningEnvironment, id="a job that starts its ranks itself"),
        pytest.param(launchers.kubeflow(0), LightningEnvironment, id="kubeflow is never guessed"),
        pytest.param({**SLURM, "SLURM_JOB_NAME": "bash"}, LightningEnvironment, id="an interactive shell in slurm"),
        pytest.param({**SLURM, "SLURM_JOB_NAME": "interactive"}, LightningEnvironment, id="slurm's interactive"),
    ],
)
def test_the_launcher_is_found_by_its_variables(environ, found):
    assert detected(environ) is found


def test_a_broken_job_is_reported_and_not_overlooked():
    with pytest.raises(ConfigError, match="LEYDEN_STEP_DIR"):
        detected({name: value for name, value in JOB.items() if name != "LEYDEN_STEP_DIR"})


@pytest.mark.parametrize("mark", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_mpi_is_asked_where_its_launcher_left_a_mark(mark, monkeypatch):
    monkeypatch.setattr(mpi_module, "installed", lambda name: True)
    monkeypatch.setattr(mpi_module, "_world", lambda: launchers.Communicator(0, [("a", 1), ("a", 0)]))
    assert detected({mark: "2"}) is MPIEnvironment
    assert detected({mark: "1"}) is LightningEnvironment


def test_mpi_of_one_rank_is_local(monkeypatch):
    monkeypatch.setattr(mpi_module, "installed", lambda name: True)
    monkeypatch.setattr(mpi_module, "_world", lambda: launchers.Communicator(0, [("a", 1)]))
    assert detected({"PMIX_RANK": "0"}) is LightningEnvironment


def test_mpi_without_mpi4py_says_what_to_install(monkeypatch):
    monkeypatch.setattr(mpi_module, "installed", lambda name: False)
    with pytest.warns(UserWarning, match=r'pip install "leyden\[mpi\]"'):
        assert detected({"OMPI_COMM_WORLD_SIZE": "2"}) is LightningEnvironment


def test_kubeflow_is_a_plugin_only():
    with pytest.raises(UnsupportedError, match=r"plugins=KubeflowEnvironment\(\)"):
        KubeflowEnvironment.detect({})


BATCH_SCRIPT = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}


@pytest.mark.parametrize("environ", [{"SLURM_JOB_ID": "7"}, BATCH_SCRIPT], ids=["allocation", "batch script with tasks"])
def test_srun_left_unused_in_a_job_is_mentioned(environ):
    with pytest.warns(UserWarning, match="srun python"):
        detect_environment(environ, which=lambda program: "/usr/bin/srun")


@pytest.mark.parametrize(
    "environ",
    [{}, {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash"}, SLURM, {**BATCH_SCRIPT, "SLURM_NTASKS": "1"}, {**BATCH_SCRIPT, **TORCHRUN}],
    ids=["login node", "shell", "step", "one task", "torchrun in a batch script"],
)
def test_srun_is_not_mentioned_elsewhere(environ):
    detect_environment(environ, which=lambda program: "/usr/bin/srun")  # warnings are errors


def test_the_process_environment_is_followed_and_not_kept(monkeypatch):
    import os
    import pickle

    environment = detect_environment(os.environ, which=lambda program: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pickle.loads(pickle.dumps(environment)).local_rank() == 3
