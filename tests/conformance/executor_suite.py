"""What every `Executor` promises: each request ends once, in order, what is wrong with one harms no other, contexts are each
request's own, and nobody computes for those who left.

A subclass makes the executor of an API that does these things, in its own kind of hooks: `{"value": v}` is answered with
`{"output": v, "id": request id}`; `{"fail": "predict"}` and `{"fail": "encode"}` raise there; a missing key is a KeyError of
`decode_request`. A stream sends its output as one piece.
"""

import json
import logging
from typing import Any

import pytest

from leyden.serve.executors.executor import Executor
from leyden.serve.executors.requests import Request
from tests.support.heard import Heard
from tests.support.told import Told


class ExecutorSuite:
    """Subclass with `executor` and, where it is so, `fails_together`."""

    fails_together = False  # an error of predict ends the whole batch
    streams = False

    def executor(self) -> Executor:
        raise NotImplementedError

    def run(self, *bodies: Any, gone: frozenset[int] = frozenset()) -> Heard:
        heard, requests = Heard(), []
        for number, body in enumerate(bodies):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request = Request(number, data, facts={"r": f"r-{number}"})
            if number in gone:
                request.cancel()
            requests.append(request)
        self.executor().run(requests, heard)
        assert sorted(heard.ended) == list(range(len(bodies))), "each request ends once"
        return heard

    def answers(self, heard: Heard) -> dict[int, Any]:
        if self.streams:
            return {number: json.loads(b"".join(chunks)) for number, chunks in heard.chunks.items()}
        return {number: json.loads(reply.body) for number, reply in heard.replies.items()}

    def test_requests_are_answered_each_with_its_own_output_and_context(self) -> None:
        heard = self.run(*({"value": number} for number in range(5)))
        assert self.answers(heard) == {number: {"output": number, "id": f"r-{number}"} for number in range(5)}
        assert heard.ended == sorted(heard.ended)

    def test_what_hooks_log_names_the_requests_that_it_is_about(self) -> None:
        told = Told()
        with told.of("tests.hooks"):
            self.run({"value": 1}, {"value": 2}, {"value": 3})
        read, computed = told.names("read"), told.names("computed")
        assert sorted(read) == [["r-0"], ["r-1"], ["r-2"]]
        assert all(names in [["r-0"], ["r-1"], ["r-2"], ["r-0", "r-1", "r-2"]] for names in computed)
        assert {name for names in computed for name in names} == {"r-0", "r-1", "r-2"}
        with told.of("tests.hooks"):
            logging.getLogger("tests.hooks").info("afterwards")
        assert told.fields("afterwards") == [{}]

    def test_one_request_and_none(self) -> None:
        assert self.answers(self.run({"value": "x"})) == {0: {"output": "x", "id": "r-0"}}
        assert self.run().ended == []

    def test_a_request_that_cannot_be_read_harms_nobody(self) -> None:
        heard = self.run({"value": 1}, b"{", {"other": 1}, {"value": 2})
        assert self.answers(heard).keys() == {0, 3}
        assert {number: fault.status for number, fault in heard.faults.items()} == {1: 400, 2: 422}
        assert heard.faults[2].message == "decode_request() raised KeyError: 'value'; the payload has keys ['other']"

    def test_an_error_of_predict(self, caplog: pytest.LogCaptureFixture) -> None:
        heard = self.run({"value": 1}, {"value": 0, "fail": "predict"}, {"value": 2})
        failed = {0, 1, 2} if self.fails_together else {1}
        assert heard.faults.keys() == failed
        assert {(fault.status, fault.code) for fault in heard.faults.values()} == {(500, "worker.failed")}
        assert "unlucky" in heard.faults[1].message
        assert "Traceback" in caplog.text

    def test_an_answer_that_cannot_be_written_harms_nobody(self) -> None:
        heard = self.run({"value": 1}, {"value": 0, "fail": "encode"}, {"value": 2})
        assert self.answers(heard).keys() == {0, 2}
        assert heard.faults[1].message.startswith("encode_response() raised ")

    def test_nobody_computes_for_those_who_left(self) -> None:
        heard = self.run({"value": 1}, {"value": 0, "fail": "predict"}, {"value": 2}, gone=frozenset({1}))
        assert self.answers(heard).keys() == {0, 2}
        assert heard.faults[1].code == "request.cancelled"

    def test_a_body_that_came_in_parts_is_read(self) -> None:
        heard, body = Heard(), memoryview(bytearray(b'{"value": 7}'))
        self.executor().run([Request(3, body)], heard)
        assert self.answers(heard)[3]["output"] == 7
