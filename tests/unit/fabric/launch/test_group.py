"""Joining: real ranks meet over a port, share groups that agree, and errors name address, port and variable."""

import os
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from leyden.core.errors import StateError, UnavailableError
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.launch import group as module
from leyden.fabric.launch.group import Group, host, join_group, listen, rendezvous
from leyden.fabric.launch.store import MemoryStore
from tests.support.ranks import run_ranks


def _environment() -> LightningEnvironment:
    environment = LightningEnvironment()
    environment.set_world_size(int(os.environ["WORLD_SIZE"]))
    environment.set_global_rank(int(os.environ["RANK"]))
    return environment


def _join(seconds: float = 30) -> Group:
    return join_group(_environment(), backend="gloo", timeout=timedelta(seconds=seconds), device=torch.device("cpu"))


def _meet() -> tuple[bytes, int, float, bool]:
    group = _join()
    assert group.owns_group
    tensor = torch.tensor([group.rank + 1.0])
    dist.all_reduce(tensor)
    dist.all_reduce(tensor, group=group.saving_group)
    won = group.store.compare_set("winner", "", "somebody")
    count = group.store.add("count", 0)
    closed: list[str] = []

    class Owned:
        def close(self) -> None:
            closed.append(group.store.get("winner").decode())

    group.own(Owned())
    group.close()
    group.close()
    assert closed == ["somebody"]
    return won, count, tensor.item(), dist.is_initialized()


def test_ranks_meet_over_a_port_with_a_store_and_a_second_group() -> None:
    assert run_ranks(_meet, 2, join=False) == [(b"somebody", 0, 6.0, False)] * 2


def _share() -> bool:
    group = _join()
    assert not group.owns_group
    dist.all_reduce(torch.ones(1), group=group.saving_group)
    group.close()
    dist.barrier()
    with pytest.raises(StateError, match=r"already rank \d of 2 in a process group, and was now to become rank 1 of 3"):
        join_group(_environment(), backend="gloo", rank=1, world_size=3)
    with pytest.raises(StateError, match=r"none of them for 'mps'"):
        join_group(_environment(), backend="x", device=torch.device("mps"))
    return dist.is_initialized()


def test_a_group_that_agrees_is_shared_and_left_alone() -> None:
    assert run_ranks(_share, 2) == [True, True]


def _alone() -> tuple[bool, int]:
    group = _join()
    tensor = torch.ones(1)
    dist.all_reduce(tensor)
    is_memory = isinstance(group.store, MemoryStore)
    group.close()
    return is_memory, int(tensor)


def test_one_rank_needs_no_port() -> None:
    assert run_ranks(_alone, 1, join=False, env={"MASTER_PORT": "0"}) == [(True, 1)]


def _nobody_listens() -> str:
    os.environ["RANK"] = "1"
    with pytest.raises(UnavailableError) as caught:
        _join(seconds=0.5)
    return str(caught.value)


def test_nobody_at_the_address_is_an_error_with_the_variables() -> None:
    message = run_ranks(_nobody_listens, 1, join=False, env={"MASTER_PORT": "1", "WORLD_SIZE": "2"})[0]

    assert message.startswith("rank 0 does not answer at 127.0.0.1:1 within 0.5 s.")
    assert "MASTER_ADDR and MASTER_PORT" in message


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"port {port} is taken.*Set MASTER_PORT"):
            rendezvous("127.0.0.1", port, hosts=True)
        with pytest.raises(UnavailableError, match=f"port {port} is taken"):
            listen(port)


def test_a_port_is_served_after_it_was_taken() -> None:
    store = host("127.0.0.1", listen(0))
    client = rendezvous("127.0.0.1", store.port, hosts=False)
    client.set("k", "v")

    assert store.get("k") == b"v"


def test_an_address_that_nobody_has_is_named_early() -> None:
    with pytest.raises(UnavailableError, match=r"the address 'no\.such\.host\.invalid' cannot be resolved.*Set MASTER_ADDR"):
        rendezvous("no.such.host.invalid", 1, hosts=False, timeout=timedelta(seconds=0.1))


def test_a_wrong_network_interface_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    with pytest.raises(UnavailableError, match=r"GLOO_SOCKET_IFNAME='nosuch0' names no network interface of this machine, which has '"):
        join_group(LightningEnvironment(environ={}), backend="gloo")


@pytest.mark.skipif(not hasattr(socket, "if_nameindex") or not Path("/sys/class/net/lo").exists(), reason="Linux only")
def test_gloo_listens_on_loopback_where_rank_zero_is_on_this_machine() -> None:
    environ: dict[str, str] = {}
    with module._gloo_interface("127.0.0.1", environ):
        assert environ == {"GLOO_SOCKET_IFNAME": "lo"}
    assert environ == {}
    with module._gloo_interface("127.0.0.1", {"GLOO_SOCKET_IFNAME": "eth7"}) as nothing:
        assert nothing is None


def test_the_interface_towards_another_node_is_found_where_the_host_name_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = {"node0": "192.0.2.1", socket.gethostname(): "127.0.1.1"}
    monkeypatch.setattr(socket, "gethostbyname", lambda name: resolved[name])
    addresses = {name: module._address_of(name) for _, name in socket.if_nameindex()}

    found = module._interface_towards("node0")

    assert found is None or addresses[found] not in (None, "127.0.0.1")


def test_an_unguarded_script_is_refused_while_it_is_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(StateError, match='if __name__ == "__main__":'):
        module.refuse_unguarded()


def _leave_without_close() -> list[str]:
    group = _join()
    if group.rank == 1:
        threading.Event().wait(0.2)  # rank 0 is done first, and hosts the store
    return [thread.name for thread in threading.enumerate() if thread.name == "leyden-stall-watch"]


def test_a_rank_may_leave_without_close() -> None:
    assert run_ranks(_leave_without_close, 2, join=False) == [["leyden-stall-watch"]] * 2
