"""`Agreement`: the laws by simulation of the very same rules and thread program, then the shell with real threads."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.core.errors import StateError
from leyden.fabric.launch.agreement import Agreement, Decision, Operation, Rules, conversation
from leyden.fabric.launch.store import MemoryStore

_NOTHING = object()


@dataclass
class _Rank:
    """A simulated process: a main thread that makes steps, and the real program of its other thread."""

    rules: Rules
    steps: int
    requests: dict[int, Decision]
    acted: list[tuple[int, Decision]] = field(default_factory=list)
    made: int = 0
    paused: bool = False
    main_done: bool = False
    thread_done: bool = False
    answer: Any = None
    operation: Operation | None = None

    def __post_init__(self) -> None:
        self.program = conversation(self.rules)

    def main(self) -> bool:
        """Advance the main thread by one move; False if it can only wait."""
        if self.main_done:
            return False
        if not self.paused:
            if self.made == self.steps:
                self.rules.closed = True
                self.main_done = True
                return True
            if (wanted := self.requests.get(self.made)) is not None:
                self.rules.want(wanted)
                self.rules.agree_alone()
            self.made += 1
            self.rules.step()
        self.paused = self.rules.is_waiting()
        if self.paused:
            return False
        if (decision := self.rules.take()) is not None:
            self.acted.append((self.made, decision))
        return True

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.main_done and self.thread_done

    def thread(self, store: MemoryStore | None) -> None:
        """Advance the other thread: perform what it asked for, then run it until it asks again; without a store it ends."""
        if self.thread_done:
            return
        if store is None:
            self.rules.give_up()
            self.thread_done = True
            return
        if self.operation is not None:
            self.answer = _perform(self.operation, store)
        try:
            self.operation = self.program.send(self.answer)
        except StopIteration:
            self.thread_done = True


def _perform(operation: Operation, store: MemoryStore) -> Any:
    match operation.name:
        case "check":
            return store.check(operation.keys)
        case "get":
            return store.get(operation.keys[0])
        case "set":
            return store.set(operation.keys[0], operation.value)
        case "compare_set":
            return store.compare_set(operation.keys[0], "", operation.value)
        case _:
            return None


def _simulate(ranks: list[_Rank], schedule: list[int]) -> None:
    """Run moves in the given order, then fairly until all are done; a run that never ends is a deadlock.

    The store is rank 0's: it goes when that rank ends.
    """
    store = MemoryStore()

    def converse(rank: _Rank) -> None:
        rank.thread(None if ranks[0].is_over else store)

    moves = [move for rank in ranks for move in (rank.main, lambda rank=rank: converse(rank))]
    for choice in schedule:
        moves[choice % len(moves)]()
    for _ in range(4000):
        if all(rank.is_over for rank in ranks):
            return
        for move in moves:
            move()
    raise AssertionError([(rank.rules, rank.operation, rank.paused) for rank in ranks])


_decisions = st.builds(Decision, st.sampled_from(["stop", "save"]), st.sampled_from(["", "SIGTERM"]))


@st.composite
def _runs(draw: st.DrawFn) -> tuple[list[_Rank], list[int]]:
    world_size = draw(st.integers(2, 4))
    steps = draw(st.integers(0, 12))
    requests = [draw(st.dictionaries(st.integers(0, 12), _decisions, max_size=2)) for _ in range(world_size)]
    ranks = [_Rank(Rules(rank, world_size), steps, requests[rank]) for rank in range(world_size)]
    # Weights make some ranks slow: the same move is likelier the more often it is named.
    favoured = draw(st.lists(st.integers(0, 2 * world_size - 1), min_size=1, max_size=8))
    return ranks, draw(st.lists(st.sampled_from(favoured) | st.integers(0, 2 * world_size - 1), max_size=300))


@settings(max_examples=100)
@given(_runs())
def test_all_ranks_act_at_the_same_steps_and_nobody_waits_for_ever(run: tuple[list[_Rank], list[int]]) -> None:
    ranks, schedule = run

    _simulate(ranks, schedule)

    assert all(rank.acted == ranks[0].acted for rank in ranks)


@settings(max_examples=60)
@given(_runs(), st.integers(0, 3), st.integers(0, 12))
def test_nobody_waits_for_ever_where_a_rank_leaves_early(run: tuple[list[_Rank], list[int]], who: int, steps: int) -> None:
    ranks, schedule = run
    early = ranks[who % len(ranks)]
    early.steps = min(steps, early.steps)

    _simulate(ranks, schedule)

    others = [rank.acted for rank in ranks if rank is not early]
    assert all(acted == others[0] for acted in others)
    assert early.acted == others[0][: len(early.acted)]


@settings(max_examples=16)
@given(st.integers(1, 4), st.integers(0, 3))
def test_a_request_that_is_early_enough_is_acted_on_once(world_size: int, who: int) -> None:
    decision = Decision("stop", "SIGTERM")
    ranks = [_Rank(Rules(rank, world_size), 5000, {0: decision} if rank == who % world_size else {}) for rank in range(world_size)]

    _simulate_until_acted(ranks)

    assert [len(rank.acted) for rank in ranks] == [1] * world_size
    assert {rank.acted[0][1] for rank in ranks} == {decision}


def _simulate_until_acted(ranks: list[_Rank]) -> None:
    store = MemoryStore()
    for _ in range(200):
        for rank in ranks:
            rank.main()
            rank.thread(store)


def test_the_same_wish_of_two_ranks_is_one_decision() -> None:
    wish = Decision("stop", "SIGTERM")
    ranks = [_Rank(Rules(rank, 2), 5000, {0: wish}) for rank in range(2)]

    _simulate_until_acted(ranks)

    assert [rank.acted for rank in ranks] == [ranks[0].acted] * 2
    assert [decision for _, decision in ranks[0].acted] == [wish]


# -- the shell -----------------------------------------------------------------------------------------------------


def test_one_process_acts_at_the_next_boundary() -> None:
    agreement = Agreement(MemoryStore(), rank=0, world_size=1)
    assert agreement.boundary() is None
    agreement.request("stop", "now")
    agreement.request("save")

    assert agreement.boundary() == Decision("stop", "now")
    assert agreement.boundary() == Decision("save")
    assert agreement.boundary() is None
    agreement.close()


def _until_decided(agreement: Agreement, deadline: float = 20.0) -> tuple[int, Decision]:
    end = time.monotonic() + deadline
    step = 0
    while time.monotonic() < end:
        step += 1
        decision = agreement.boundary()
        if decision is not None:
            return step, decision
    raise AssertionError(f"no decision within {deadline} s")


def test_two_ranks_with_real_threads_act_at_one_step() -> None:
    store = MemoryStore()
    ranks = [Agreement(store, rank, 2, poll_seconds=0.005) for rank in range(2)]
    ranks[1].request("stop", json.dumps({"by": 1}))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(_until_decided, ranks)

    assert first == second
    assert first[1] == Decision("stop", '{"by": 1}')
    for rank in ranks:
        rank.close()


def test_a_source_is_asked_by_the_thread() -> None:
    wishes = [Decision("stop", "preempted")]
    agreement = Agreement(MemoryStore(), 0, 1, sources=[lambda: wishes.pop() if wishes else None], poll_seconds=0.005)

    assert _until_decided(agreement)[1] == Decision("stop", "preempted")
    agreement.close()


def test_a_rank_that_never_answers_is_named_after_the_timeout() -> None:
    agreement = Agreement(MemoryStore(), rank=0, world_size=2, timeout=timedelta(seconds=0.05), poll_seconds=0.005)
    agreement.request("stop")

    with pytest.raises(StateError, match=r"rank 0 waited 0\.05 s at step \d+ for the other ranks"):
        _until_decided(agreement)
    agreement.close()


def test_close_is_idempotent_and_frees_the_others() -> None:
    store = MemoryStore()
    stays, leaves = (Agreement(store, rank, 2, poll_seconds=0.005) for rank in range(2))
    leaves.close()
    leaves.close()
    stays.request("stop")
    for _ in range(100):
        assert stays.boundary() is None
    stays.close()


def test_a_lost_store_ends_the_thread_and_the_loop_goes_on() -> None:
    agreement = Agreement(_LostStore(), rank=1, world_size=2, poll_seconds=0.005)
    agreement._thread.join(10)

    assert not agreement._thread.is_alive()
    assert agreement.boundary() is None
    agreement.close()


class _LostStore:
    """A store whose connection is gone."""

    def __getattr__(self, name: str) -> Any:
        if name == "clone":
            raise AttributeError(name)
        raise RuntimeError("Connection reset by peer")


def test_the_quiet_boundary_takes_no_more_than_a_few_calls() -> None:
    agreement = Agreement(MemoryStore(), rank=0, world_size=1)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event in ("call", "c_call") else None)
    try:
        agreement.boundary()
    finally:
        sys.setprofile(None)
    agreement.close()

    assert len(calls) <= 6, calls
