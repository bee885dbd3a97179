"""The router, rule by rule: admission, batches, windows, time-outs, cancellation, lost workers, the end."""

import math
from typing import Any

from leyden.serve.batching import BatchRule
from leyden.serve.limits import Limits
from leyden.serve.router import Call, CancelOnWorker, Dispatch, Fail, Router, WorkerId

ONE, TWO = WorkerId(0, 0), WorkerId(0, 1)


def router(size: int = 1, wait: float = 0.0, timeout: float = 30.0, workers: int = 1, **limits: Any) -> Router:
    made = Router([BatchRule(max_batch_size=size, batch_timeout=wait)], [timeout], Limits(**limits))
    for index in range(workers):
        made.worker_ready(WorkerId(0, index), 0.0)
    return made


def submit(made: Router, *ids: int, now: float = 0.0, **options: Any) -> None:
    for number in ids:
        made.submit(Call(number, 0, **options), now)


def sent(made: Router) -> list[tuple[int, list[int]]]:
    """Return worker and calls of each dispatch; nothing else may have happened."""
    found = []
    for effect in made.take_effects():
        assert isinstance(effect, Dispatch), effect
        found.append((effect.worker.index, [call.id for call in effect.calls]))
    return found


def failed(made: Router) -> list[tuple[int, int, str]]:
    return [(effect.call.id, effect.status, effect.code) for effect in made.take_effects() if isinstance(effect, Fail)]


def test_a_request_goes_to_a_worker_that_is_idle_at_once() -> None:
    made = router()
    submit(made, 1)
    assert sent(made) == [(0, [1])]
    submit(made, 2)
    assert sent(made) == []
    made.item_ended(ONE, 1, 0.1)
    assert sent(made) == [(0, [2])]
    made.item_ended(ONE, 2, 0.2)
    assert made.open_calls == made.held(0) == made.waiting(0) == 0


def test_the_worker_that_has_been_idle_for_longest_is_next() -> None:
    made = router(workers=2)
    submit(made, 1, 2)
    assert sent(made) == [(0, [1]), (1, [2])]
    made.item_ended(TWO, 2, 1.0)
    made.item_ended(ONE, 1, 2.0)
    submit(made, 3, now=3.0)
    assert sent(made) == [(1, [3])]


def test_what_waits_while_a_worker_is_busy_becomes_a_batch() -> None:
    made = router(size=4)
    submit(made, 1, 2, 3, 4, 5, 6)
    assert sent(made) == [(0, [1])]
    made.item_ended(ONE, 1, 0.1)
    assert sent(made) == [(0, [2, 3, 4, 5])]


def test_a_batch_waits_for_more_from_its_first_request_on() -> None:
    made = router(size=3, wait=0.05)
    submit(made, 1, now=1.0)
    assert sent(made) == []
    assert made.next_wakeup() == 1.05
    submit(made, 2, now=1.04)
    made.tick(1.049)
    assert sent(made) == []
    made.tick(1.05)
    assert sent(made) == [(0, [1, 2])]
    submit(made, 3, 4, 5, now=1.06)
    assert sent(made) == []
    made.item_ended(ONE, 1, 1.07)
    made.item_ended(ONE, 2, 1.07)
    assert sent(made) == [(0, [3, 4, 5])], "a full batch waits no longer"


def test_quick_items_are_staged_in_whole_batches_and_slow_ones_are_not() -> None:
    made, now = router(size=2), 0.0
    for number in range(0, 40, 2):
        submit(made, number, now=now)
        sent(made)
        now += 0.0001
        made.item_ended(ONE, number, now)
    submit(made, *range(100, 200), now=now)
    held = made.held(0)
    assert 2 < held <= 66
    assert all(len(calls) <= 2 for _, calls in sent(made))
    made = router(size=2)
    for number in range(20):
        submit(made, number, now=float(number))
        made.item_ended(ONE, number, number + 0.5)
    submit(made, *range(100, 110), now=30.0)
    assert made.held(0) <= 2


def test_what_fills_no_batch_waits_in_the_router_where_others_may_still_join_it() -> None:
    made, now = router(size=4), 0.0
    for number in range(20):
        submit(made, number, now=now)
        now += 0.0001
        made.item_ended(ONE, number, now)
    made.take_effects()
    submit(made, 100, 101, 102, 103, now=now)
    assert sent(made) == [(0, [100])]
    submit(made, 104, now=now)
    assert sent(made) == [(0, [101, 102, 103, 104])]


def test_a_request_that_has_waited_for_too_long_is_never_computed() -> None:
    made = router(timeout=1.0)
    submit(made, 1, 2, 3)
    assert sent(made) == [(0, [1])]
    assert made.next_wakeup() == 1.0
    made.tick(1.0)
    assert failed(made) == [(2, 504, "queue.expired"), (3, 504, "queue.expired")]
    made.item_ended(ONE, 1, 5.0)
    assert made.take_effects() == []
    assert made.open_calls == 0


def test_a_deadline_answers_while_the_worker_goes_on() -> None:
    made = router()
    submit(made, 1, deadline=2.0)
    submit(made, 2, deadline=3.0)
    made.take_effects()
    assert made.next_wakeup() == 2.0
    made.tick(2.0)
    answer, cancel = made.take_effects()
    assert isinstance(answer, Fail)
    assert (answer.call.id, answer.code) == (1, "deadline.exceeded")
    assert isinstance(cancel, CancelOnWorker)
    assert (cancel.worker, cancel.why) == (ONE, "deadline")
    assert made.held(0) == 1, "its place is taken until it has really ended"
    made.item_ended(ONE, 1, 2.5)
    assert sent(made) == [(0, [2])]
    submit(made, 3, now=9.0, deadline=8.0)
    assert failed(made) == [(3, 504, "deadline.exceeded")]


def test_a_client_that_leaves_is_dropped_or_told_to_its_worker() -> None:
    made = router()
    submit(made, 1, 2, 3)
    made.take_effects()
    made.cancel(2, "disconnect", 0.1)
    assert made.take_effects() == []
    made.cancel(1, "disconnect", 0.1)
    (effect,) = made.take_effects()
    assert isinstance(effect, CancelOnWorker)
    made.cancel(1, "disconnect", 0.2)
    assert made.take_effects() == []
    made.item_ended(ONE, 1, 0.3)
    assert sent(made) == [(0, [3])]


def test_more_than_the_queue_holds_is_refused_at_once() -> None:
    made = router(max_queue_size=2)
    submit(made, 1, 2, 3, 4)
    (refusal,) = [effect for effect in made.take_effects() if isinstance(effect, Fail)]
    assert (refusal.call.id, refusal.status, refusal.code, refusal.retry_after) == (4, 429, "queue.full", 1)
    made = router(max_inflight_bytes=100)
    submit(made, 1, size=500)
    submit(made, 2, size=1)
    assert failed(made) == [(2, 429, "queue.full")], "one large request is taken if nothing else is there"
    made.item_ended(ONE, 1, 0.1)
    assert made.held_bytes == 0


def test_what_would_wait_longer_than_its_time_out_is_refused_once_that_is_known() -> None:
    made = router(timeout=5.0)
    submit(made, *range(1000, 1050))
    assert failed(made) == [], "nothing is known yet"
    made = router(timeout=5.0)
    for number in range(20):
        submit(made, number, now=float(number))
        made.item_ended(ONE, number, number + 1.0)
    made.take_effects()
    submit(made, *range(100, 120), now=20.0)
    refused = [effect for effect in made.take_effects() if isinstance(effect, Fail)]
    assert [effect.call.id for effect in refused] == list(range(107, 120)), "one runs, and six may wait"
    assert all(1 <= effect.retry_after <= 60 and effect.status == 429 for effect in refused)


def test_requests_wait_for_the_first_worker() -> None:
    made = router(size=8, workers=0)
    submit(made, 1, 2)
    assert made.next_wakeup() == 30.0
    made.worker_ready(ONE, 3.0)
    assert sent(made) == [(0, [1, 2])]


def test_what_a_lost_worker_held_is_answered_and_may_run_again_once() -> None:
    made = router(size=3)
    submit(made, 1)
    submit(made, 2, idempotent=True)
    submit(made, 3, 4, 5)
    made.item_ended(ONE, 1, 0.1)
    made.take_effects()
    made.worker_gone(ONE, "SIGKILL", 0.2)
    assert failed(made) == [(3, 503, "worker.lost"), (4, 503, "worker.lost")]
    made.worker_ready(ONE, 0.5)
    assert sent(made) == [(0, [2, 5])]
    made.worker_gone(ONE, "SIGKILL", 0.6)
    assert failed(made) == [(2, 503, "worker.lost"), (5, 503, "worker.lost")]
    made.item_ended(ONE, 2, 0.7)
    assert made.open_calls == 0


def test_an_answer_that_has_begun_does_not_begin_again() -> None:
    made = router()
    call = Call(1, 0, idempotent=True)
    made.submit(call, 0.0)
    call.has_answered = True
    made.worker_gone(ONE, "SIGSEGV", 0.1)
    assert failed(made) == [(1, 503, "worker.lost")]


def test_an_api_that_fails_and_a_server_that_stops_say_so() -> None:
    made = router()
    made.set_failing(0, "setup() raised ValueError")
    submit(made, 1)
    assert failed(made) == [(1, 503, "server.not_ready")]
    made.set_failing(0, "")
    submit(made, 2, 3)
    made.drain()
    submit(made, 4)
    assert failed(made) == [(4, 503, "server.draining")]
    made.item_ended(ONE, 2, 0.1)
    assert sent(made) == [(0, [3])], "what was taken is done"
    made.stop()
    answer, cancel = made.take_effects()
    assert isinstance(answer, Fail)
    assert isinstance(cancel, CancelOnWorker)
    assert (answer.code, cancel.why) == ("server.draining", "shutdown")
    assert made.open_calls == 0


def test_apis_do_not_wait_for_each_other() -> None:
    made = Router([BatchRule(), BatchRule(max_batch_size=2)], [1.0, math.inf])
    made.worker_ready(WorkerId(0, 0), 0.0)
    made.worker_ready(WorkerId(1, 0), 0.0)
    for number in range(4):
        made.submit(Call(number, number % 2), 0.0)
    found = [(effect.worker.api, [call.id for call in effect.calls]) for effect in made.take_effects() if isinstance(effect, Dispatch)]
    assert found == [(0, [0]), (1, [1])]
    made.tick(100.0)
    assert failed(made) == [(2, 504, "queue.expired")]
    assert made.next_wakeup() is None
