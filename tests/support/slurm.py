"""A real Slurm on this computer: munged, slurmctld and slurmd of a test, in a folder of its own, gone at the end.

```python
@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:   # skips where a program is missing
        yield cluster

def test_something(slurm):
    slurm.run("srun", "--ntasks=2", "hostname")
```

One node with four processors, whatever this computer has. The daemons run as the user of the tests; ports are free ones.
On Debian: `apt-get install slurm-wlm munge`.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue")
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/slurm/sbin", "/opt/slurm/bin"))
_START_SECONDS = 30.0
_POLL_SECONDS = 0.1  # the daemons tell nobody when they are ready

_CONFIGURATION = """\
ClusterName=leyden
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=10
ReturnToService=2
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(AssertionError):
    """A daemon did not start, or a command failed; holds what the daemons logged."""


class SlurmCluster:
    """The daemons, and commands that talk to them. Use `slurm_cluster`, which leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": _PLACES,
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)  # munged refuses a folder that others may write to
        values = {"controller_port": free_port(), "node_port": free_port(), "user": getpass.getuser(), "host": node_name()}
        (self.folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=self.folder, **values))
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{ending}" for option, ending in files.items()]
        self._spawn("munged", "--foreground", "--force", *options)
        self.wait_until((self.folder / "munge.socket").exists, "munged listens", _START_SECONDS)
        self._spawn("slurmctld", "-D", "-c")
        self._spawn("slurmd", "-D", "-c", "-N", values["host"])
        self.wait_until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), "the node takes jobs", _START_SECONDS)

    def run(self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 100.0) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            SlurmError: It failed.
        """
        done = subprocess.run(
            command, cwd=cwd, env={**self.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise SlurmError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done.stdout

    def ask(self, *command: str) -> str:
        """Return what a command prints, and nothing if the daemons do not answer."""
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else ""

    def submit(self, script: str, *options: str, cwd: Path) -> str:
        """Submit a batch script and return the job's number."""
        (cwd / "batch.sh").write_text(script)
        return self.run("sbatch", "--parsable", *options, "batch.sh", cwd=cwd).strip()

    def job(self, number: str) -> dict[str, str]:
        """Return what `scontrol show job` says."""
        return dict(pair.partition("=")[::2] for pair in self.ask("scontrol", "--oneliner", "show", "job", number).split())

    def wait_until(self, condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Wait for something that the daemons do.

        Raises:
            SlurmError: It did not happen in time, or a daemon has ended.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise SlurmError(f"not within {timeout} s: {what}; ended: {ended}\n{self.ask('squeue')}\n{self.logs()}")
            time.sleep(_POLL_SECONDS)

    def logs(self) -> str:
        """Return the end of what each daemon logged."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def close(self) -> None:
        """Cancel every job and end the daemons, the newest first."""
        if len(self._daemons) > 1:
            self.ask("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
            self.ask("scancel", f"--user={getpass.getuser()}")
            with contextlib.suppress(SlurmError):
                self.wait_until(lambda: not self.ask("squeue", "--noheader"), "no job is left", 20.0)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{command[0]}-output.log").open("wb") as output:
            self._daemons.append(subprocess.Popen(command, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output))


def node_name() -> str:
    """Return the name of the one node: this computer's, which ranks resolve to meet."""
    return socket.gethostname().partition(".")[0]


def missing_programs(programs: Sequence[str] = PROGRAMS) -> list[str]:
    """Return which of Slurm's programs are not installed."""
    return [name for name in programs if shutil.which(name, path=_PLACES) is None]


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Run Slurm for the length of the block; skips the test where a program is not installed."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed: {', '.join(missing)} not found (Debian: apt-get install slurm-wlm munge)")
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
