"""A whole server under everything at once: good requests, bad ones, clients that leave, deaths of workers and front ends."""

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.chaos import APIS, FOLDER, IMPORTS, NEVER, OPTIONS, Chaos, Reaper, descriptors, kinds_of, memory, unleash
from tests.support.served import Served, served

NUM_CLIENTS, NUM_WORKERS = 12, 8
GROWTH_MIB = 10


def is_quiet(server: Served) -> bool:
    """Whether no front end has a request."""
    numbers = re.findall(r"leyden_serve_(?:inflight|inflight_bytes|queue_depth){[^}]*} (\d+)", server.get("/metrics").text)
    return set(numbers) == {"0"}


def is_whole(server: Served) -> bool:
    found = kinds_of(server)
    return server.get("/health").status_code == 200 and (len(found["worker"]), len(found["front"])) == (NUM_WORKERS, 2)


def held(server: Served) -> dict[str, int]:
    """Return the most descriptors of the processes of each kind."""
    return {kind: max(map(descriptors, pids), default=0) for kind, pids in kinds_of(server).items() if kind != "other"}


def is_no_more(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[kind] <= most for kind, most in before.items())


def check(server: Served, clients: list[Chaos]) -> None:
    """Nobody got a wrong answer, and nothing is open any more."""
    assert [wrong for client in clients for wrong in client.wrong] == [], server.script.stderr[-3000:]
    server.script.wait_for(lambda: is_whole(server) and is_quiet(server), "well and quiet", 90)


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.long)])
def test_after_everything_at_once_nothing_is_left(tmp_path: Path, seconds: int) -> None:
    apis = APIS.replace(FOLDER, repr(str(tmp_path)))
    with served(apis, options=OPTIONS, run="num_api_servers=2, log_level='warning'", imports=IMPORTS) as server:
        port = int(server.url.rpartition(":")[2])
        reaper = Reaper(server, seconds)
        reaper.kill_fronts()  # later ones hold what came after the first ones
        server.script.wait_for(lambda: is_whole(server), "well", 60)
        clients = unleash(port, range(NUM_CLIENTS), None, seconds / 4)  # all that is made once is there
        check(server, clients)
        descriptors_before = held(server)
        memory_before = {pid: memory(pid) for pids in kinds_of(server).values() for pid in pids}
        clients += unleash(port, range(100, 100 + NUM_CLIENTS), None, seconds / 4)
        check(server, clients)
        server.script.wait_for(lambda: is_no_more(held(server), descriptors_before), "no descriptor more", 20)
        grown = {pid: memory(pid) - before for pid, before in memory_before.items()}
        assert all(each < GROWTH_MIB for each in grown.values()), grown
        clients += unleash(port, range(200, 200 + NUM_CLIENTS), reaper, seconds / 2)
        check(server, clients)
        server.script.wait_for(lambda: is_no_more(held(server), descriptors_before), "no descriptor more", 20)
        assert memory(server.script.process.pid) < memory_before[server.script.process.pid] + GROWTH_MIB
        assert server.post(5).json() == {"output": 25}
        told = [line for line in server.script.stderr.splitlines() if NEVER.search(line)]
        assert told == [], "\n".join(told[:20])
        server.script.send(signal.SIGTERM)
        assert server.script.wait().code == 0
        server.script.wait_until_gone()
        done = sum((client.done for client in clients), Counter[str]())
        assert set(done) == {name for name in dir(Chaos) if name.startswith("do_")} or seconds < 60
