"""The servers of the benchmarks: what they cost is seen, and nothing of them is left."""

import shutil
import socket
from pathlib import Path

import pytest

from benchmarks.load import at_once, open_loop, wrk
from benchmarks.servers import Ended, form_body, serving


def test_a_server_is_measured_and_stopped(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with serving("leyden", "slow", batch=4, ledger=str(ledger)) as server:
        assert server.seconds_to_200 > 0
        assert len(server.pids()) >= 3
        assert server.cpu_seconds() > 0
        assert server.megabytes() > 10
        sent = open_loop(server, 100, 0.3) + at_once(server, 5)
        assert {each.status for each in sent} == {200}
        assert all(0 < each.seconds < 10 for each in sent)
        assert len(ledger.read_text(encoding="utf-8").splitlines()) == len(sent) + 1
        if shutil.which("wrk"):
            found = wrk(server, 1, connections=2)
            assert found["requests"] > 0
            assert found["errors"] == 0
        assert server.stop() == Ended(0, 0)
        assert server.pids() == []
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", server.port)) != 0


def test_a_server_that_answers_its_first_request_otherwise_than_well_is_an_error() -> None:
    body, kind = form_body(100)
    with pytest.raises(RuntimeError, match="answers its first request with 422"), serving("leyden", "echo", body, kind):
        pass
