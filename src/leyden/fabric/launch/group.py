"""`join_group`: this process becomes a rank. `Group` owns what belongs to that: process group, saving group, store.

The rendezvous is one TCP store: the launcher's, which listens before the ranks start (no find-then-bind race), torchrun's,
or one that rank 0 opens at `MASTER_PORT`. Once the group exists, rank 0 opens another for the run (`fabric.store`) on a
free port and tells it by broadcast: the same under every launcher.
"""

import contextlib
import errno
import ipaddress
import multiprocessing
import socket
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any, Protocol, final

import torch
from torch import distributed as dist

from leyden.core import settings
from leyden.core.errors import StateError, UnavailableError, listed
from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.launch import lifeline
from leyden.fabric.launch.stall import StallWatch
from leyden.fabric.launch.store import KeyValueStore, MemoryStore, tcp_store

DEFAULT_TIMEOUT = timedelta(minutes=30)
CONNECT_TIMEOUT = timedelta(minutes=1)
GOODBYE = timedelta(seconds=2)
RESOLVE_SECONDS = 10.0  # a container's name may appear in the DNS shortly after its start

GUARD = """put what starts the run behind a guard, because every process that is spawned imports the script again:

    def main():
        ...

    if __name__ == "__main__":
        main()"""


@final
@dataclass(eq=False)
class Group:
    """What joining gave this process; `close` gives it back.

    Args:
        rank: This process's rank.
        world_size: How many ranks there are.
        backend: The backend that was asked for.
        timeout: The time-out of every collective.
        store: The run's key-value store, `fabric.store`.
        saving_group: A second gloo group, for checkpoints: their collectives must not mix with training's.
        watch: Reports stalled collectives; `None` for one process.
        owns_group: Whether the default process group was made here, and not found.
    """

    rank: int
    world_size: int
    backend: str
    timeout: timedelta
    store: KeyValueStore
    saving_group: Any
    watch: StallWatch | None
    owns_group: bool

    def __post_init__(self) -> None:
        self._owned: list[Closeable] = []
        self._closed = False
        # Unlike atexit's, this runs in the children of multiprocessing too. It keeps this object until then: what is owned must be
        # closed also where nobody holds the Fabric any more.
        self._at_exit = Finalize(None, _close_at_exit, args=(self,), exitpriority=10)

    def own(self, other: "Closeable") -> None:
        """Close `other`, which uses the store, before the store goes."""
        self._owned.append(other)

    def close(self, *, goodbye: bool = True) -> None:
        """Destroy what was made here. Idempotent.

        Args:
            goodbye: Whether rank 0, which hosts the store, lets the others finish with it first (two seconds at most).
        """
        if self._closed:
            return
        self._closed = True
        self._at_exit.cancel()
        for other in (*reversed(self._owned), *([self.watch] if self.watch is not None else [])):
            other.close()
        self._destroy()
        if goodbye and self.world_size > 1:
            self._say_goodbye()

    def _destroy(self) -> None:
        group, self.saving_group = self.saving_group, None
        if not dist.is_initialized():  # somebody destroyed the default group, and with it all others
            return
        if self.owns_group:
            dist.destroy_process_group()
        else:
            dist.destroy_process_group(group)

    def _say_goodbye(self) -> None:
        with contextlib.suppress(RuntimeError):  # the others may be gone, or dead
            if self.rank:
                self.store.set(f"left/{self.rank}", "1")
            else:
                self.store.wait([f"left/{rank}" for rank in range(1, self.world_size)], GOODBYE)


class Closeable(Protocol):
    """Something with an end."""

    def close(self) -> None:
        """End it."""


def _close_at_exit(group: Group) -> None:
    group.close(goodbye=not hasattr(sys, "last_value"))  # after an uncaught error nobody should wait


def join_group(
    environment: ClusterEnvironment,
    *,
    backend: str,
    timeout: timedelta = DEFAULT_TIMEOUT,
    device: torch.device | None = None,
    store: dist.Store | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> Group:
    """Join the process group, or share the one that is there.

    Args:
        environment: Tells address, port, rank and world size.
        backend: For `torch.distributed`, such as `"gloo"` or `"cpu:gloo,cuda:nccl"`.
        timeout: For every collective, and for all ranks to come together.
        device: This process's device; accelerators are bound to the group at once.
        store: A rendezvous that listens already (`launcher.store`).
        rank: Instead of the environment's.
        world_size: Instead of the environment's.

    Raises:
        UnavailableError: The address, the port or the network interface cannot be used, or ranks did not come in time.
        StateError: A process group of another shape exists; or a spawned process runs the script without a guard.
    """
    rank = environment.global_rank() if rank is None else rank
    world_size = environment.world_size() if world_size is None else world_size
    refuse_unguarded()
    lifeline.attach(rank)
    owns_group = not dist.is_initialized()
    _check_interface(settings.environment())
    if owns_group:
        _create(environment, backend, timeout, device, store, rank, world_size)
    else:
        _check_shared(backend, device, rank, world_size)
    saving_group = dist.new_group(backend="gloo", timeout=timeout)
    if world_size == 1:
        return Group(rank, world_size, backend, timeout, MemoryStore(timeout), saving_group, None, owns_group)
    run_store = _open_run_store(environment, saving_group, rank, timeout)
    watch = StallWatch(run_store, rank, world_size, timeout)
    return Group(rank, world_size, backend, timeout, run_store, saving_group, watch, owns_group)


def refuse_unguarded() -> None:
    """Raise if this process is being spawned and imports a script that starts a run right away.

    Raises:
        StateError: It does; the message shows the guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        error = StateError(f"A process was about to be started while this one is still being spawned. In your script, {GUARD}")
        hook = lifeline.attach()
        if hook is not None:
            hook.report(error)
        raise error


def rendezvous(address: str, port: int, *, hosts: bool, timeout: timedelta = DEFAULT_TIMEOUT) -> dist.TCPStore:
    """Open the store where ranks meet, or connect to it.

    Raises:
        UnavailableError: Nobody has that name, the port is taken, or nobody listens there in time.
    """
    _resolve(address, timeout)
    try:
        return tcp_store(address, port, hosts=hosts, timeout=timeout)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error) or "already in use" in str(error):
            raise _port_taken(port) from error
        raise UnavailableError(
            f"rank 0 does not answer at {address}:{port} within {timeout.total_seconds():g} s. Check that MASTER_ADDR and MASTER_PORT are "
            "the same on every node and name the node of rank 0, that it has started, and that no firewall is between."
        ) from error


def listen(port: int) -> socket.socket:
    """Take a port (0: any free one) without a thread, so that processes can be forked before `host` serves it.

    Raises:
        UnavailableError: The port is taken.
    """
    two_stacks = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if two_stacks else socket.AF_INET, dualstack_ipv6=two_stacks)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_taken(port) from error
        raise


def host(address: str, listener: socket.socket) -> dist.TCPStore:
    """Serve the rendezvous on a port that `listen` took. The socket belongs to the store from here on."""
    port = listener.getsockname()[1]
    return tcp_store(address, port, hosts=True, timeout=DEFAULT_TIMEOUT, descriptor=listener.detach())


def _port_taken(port: int) -> UnavailableError:
    return UnavailableError(
        f"port {port} is taken, so rank 0 cannot listen there. Set MASTER_PORT to a free port (the same on every node); on one machine "
        "leave it unset: a free one is taken."
    )


def _resolve(address: str, timeout: timedelta) -> None:
    """Fail early on a name that nobody has: torch would try for the whole time-out."""
    deadline = time.monotonic() + min(RESOLVE_SECONDS, timeout.total_seconds())
    while True:
        try:
            socket.getaddrinfo(address, None)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the address {address!r} cannot be resolved ({error}). Set MASTER_ADDR to a name or IP address of the node of rank 0."
                ) from error
            time.sleep(0.5)
        else:
            return


def _create(
    environment: ClusterEnvironment,
    backend: str,
    timeout: timedelta,
    device: torch.device | None,
    store: dist.Store | None,
    rank: int,
    world_size: int,
) -> None:
    environ = settings.environment()
    if store is None:
        store = _find_store(environment, environ, timeout, rank, world_size)
    # torchrun keeps its store over restarts: the keys of the ranks before must not be found again.
    store = dist.PrefixStore(f"leyden/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    bound = device if device is not None and device.type != "cpu" and device.index is not None else None
    hook = sys.excepthook
    with _gloo_interface(environment.main_address if world_size > 1 else "127.0.0.1", environ):
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout, device_id=bound)
        except RuntimeError as error:
            raise _joining_error(error, environment, timeout) from error
    if getattr(hook, "stays_on_top", False):  # torch puts its own around ours, and loses what is shown before a SystemExit
        sys.excepthook = hook


def _find_store(
    environment: ClusterEnvironment, environ: MutableMapping[str, str], timeout: timedelta, rank: int, world_size: int
) -> dist.Store:
    if world_size == 1:
        return dist.HashStore()
    agent_listens = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts = rank == 0 and not agent_listens
    return rendezvous(environment.main_address, environment.main_port, hosts=hosts, timeout=timeout)


def _joining_error(error: RuntimeError, environment: ClusterEnvironment, timeout: timedelta) -> RuntimeError:
    if isinstance(error, (dist.DistNetworkError, dist.DistStoreError)) or "/gloo/" in str(error):
        where = f"{environment.main_address}:{environment.main_port}"
        return UnavailableError(
            f"not all ranks came together at {where} (MASTER_ADDR, MASTER_PORT) within {timeout.total_seconds():g} s: {error}. "
            "Check that every rank has started, and on several nodes that GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME) "
            "names the interface that connects them."
        )
    return error


def _check_interface(environ: MutableMapping[str, str]) -> None:
    """Refuse a wrong interface before anybody waits for this rank."""
    given = environ.get("GLOO_SOCKET_IFNAME", "")
    there = [name for _, name in socket.if_nameindex()]
    if any(name.strip() not in there for name in given.split(",") if name):
        raise UnavailableError(
            f"GLOO_SOCKET_IFNAME={given!r} names no network interface of this machine, which has {listed(there)}. Correct or unset it."
        )


@contextmanager
def _gloo_interface(address: str, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Let gloo listen where the others can reach it.

    It takes the address that the host name resolves to: 127.0.1.1 on Debian, which other nodes cannot reach, or none at
    all in some containers. On one machine loopback is right; on several, the interface that leads to rank 0.
    """
    name = None if "GLOO_SOCKET_IFNAME" in environ else _interface_towards(address)
    if name is not None:
        environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        if name is not None:
            environ.pop("GLOO_SOCKET_IFNAME", None)


def _interface_towards(address: str) -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    names = [name for _, name in socket.if_nameindex()]
    try:
        target = socket.gethostbyname(address)
        if ipaddress.ip_address(target).is_loopback:
            return "lo" if "lo" in names else None
        if not ipaddress.ip_address(socket.gethostbyname(socket.gethostname())).is_loopback:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # sends nothing: only asks the kernel for the route
            ours = probe.getsockname()[0]
        return next((name for name in names if _address_of(name) == ours), None)
    except OSError:
        return None


def _address_of(interface: str) -> str | None:
    import fcntl  # not on every platform; this function runs on Linux only

    get_address = 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), get_address, interface.encode()[:15].ljust(256, b"\0"))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _check_shared(backend: str, device: torch.device | None, rank: int, world_size: int) -> None:
    there = (dist.get_rank(), dist.get_world_size())
    if there != (rank, world_size):
        raise StateError(
            f"this process is already rank {there[0]} of {there[1]} in a process group, and was now to become rank {rank} of {world_size}. "
            "Use the same devices and num_nodes, or torch.distributed.destroy_process_group() first."
        )
    kind = "cpu" if device is None else device.type
    config = str(dist.get_backend_config())
    if f"{kind}:" not in config:
        raise StateError(
            f"the process group that exists has the backends {config!r}, none of them for {kind!r} ({backend!r} was asked for). "
            "Create it with that backend, or leave its creation to fabric.launch()."
        )


def _open_run_store(environment: ClusterEnvironment, group: Any, rank: int, timeout: timedelta) -> dist.TCPStore:
    address = environment.main_address
    told: list[Any] = [None]
    store: dist.TCPStore | None = None
    if rank == 0:
        try:
            store = rendezvous(address, 0, hosts=True, timeout=timeout)
            told = [store.port]
        except UnavailableError as error:
            told = [str(error)]  # else the others would wait for a port that never comes
    dist.broadcast_object_list(told, src=0, group=group)
    if isinstance(told[0], str):
        raise UnavailableError(told[0])
    if store is None:  # it listens already, so this takes no time
        store = rendezvous(address, told[0], hosts=False, timeout=min(timeout, CONNECT_TIMEOUT))
    dist.barrier(group=group)  # rank 0 must not leave, with the store, before all have found it
    return store
