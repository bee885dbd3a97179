"""What every test gets: one thread, a home of its own, no network beyond this machine, and the same examples each time."""

import gc
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Set before torch is imported anywhere, and inherited by every process a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in the background with Ctrl-C ignored, and every process a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomised: a failure on one machine is a failure on all. `make test-long` takes the profile `long`, and
# `--hypothesis-profile=search` looks for new examples. Laws whose examples are whole runs take a share: `settings().max_examples // 2`.
settings.register_profile("same", derandomize=True, max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("same"), max_examples=60)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("same")

# Variables of a launcher or of a user's shell would change what a Fabric does.
FOREIGN_PREFIXES = ("LEYDEN_", "LT_", "SLURM_", "PL_", "TORCHELASTIC_", "OMPI_", "PMI_", "LSB_", "JSM_")
FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "KUBERNETES_PORT")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Set aside what collecting leaves: ten thousand tests and torch, which each `gc.collect()` of a test would walk in half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def environment_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    drop_foreign()
    monkeypatch.setenv("LEYDEN_HOME", str(tmp_path_factory.getbasetemp() / "leyden-home"))
    yield
    drop_foreign()  # what the test itself set (a seed, say) must not reach the next module's fixtures


def drop_foreign() -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN:
            del os.environ[name]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a test, or a program it runs in this process, does to Leyden's logger: the next one reads records."""
    logger = logging.getLogger("leyden")
    handlers, level, propagates = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse connections that leave this machine: a test that needs one would fail elsewhere, or tell a stranger."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


def guarded(connect: Callable[..., object]) -> Callable[..., object]:
    def connect_on_this_machine(self: socket.socket, address: Any) -> object:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(str(address[0])):
            raise PermissionError(f"a test tried to connect to {address!r}: tests reach no other machine")
        return connect(self, address)

    return connect_on_this_machine


def is_here(host: str) -> bool:
    if host in ("localhost", "", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
