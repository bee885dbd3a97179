import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.trainer.callbacks.top_k import Mode, Ranking, worst_score

SCORES = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, math.inf, -math.inf, math.nan])


@given(st.sampled_from(["min", "max"]), st.integers(-1, 4), st.lists(SCORES, max_size=12))
def test_what_is_kept_are_the_best_of_all_that_came(mode: Mode, keep: int, values: list[float]) -> None:
    ranking = Ranking(mode=mode, keep=keep)
    sign = 1 if mode == "min" else -1
    model: list[float] = []  # what less is better of
    for number, value in enumerate(values):
        if ranking.accepts(torch.tensor(value)):
            ranking = ranking.with_path(str(number), torch.tensor(value))
        model.append(math.inf if math.isnan(value) else sign * value)
    kept = sorted(model)[: len(model) if keep == -1 else keep]
    assert sorted(sign * float(score) for score in ranking.scores.values()) == kept
    assert all(model[int(path)] == sign * float(score) for path, score in ranking.scores.items())
    if kept:
        assert ranking.best is not None
        assert sign * float(ranking.scores[ranking.best]) == kept[0]
    is_full = len(kept) == keep or keep == -1
    assert (ranking.kth is not None) == (is_full and bool(kept))
    if ranking.kth is not None:
        assert sign * float(ranking.scores[ranking.kth]) == kept[-1]


@pytest.mark.parametrize(("mode", "worst"), [("min", math.inf), ("max", -math.inf)])
def test_nan_is_kept_as_the_worst_score(mode: Mode, worst: float) -> None:
    ranking = Ranking(mode=mode).with_path("a", torch.tensor(math.nan))
    assert float(ranking.scores["a"]) == worst == float(worst_score(mode))
    assert ranking.accepts(torch.tensor(1.0))
    assert not ranking.accepts(torch.tensor(math.nan))


def test_a_tie_does_not_push_out_the_worst() -> None:
    assert not Ranking(scores={"a": torch.tensor(1.0)}).accepts(torch.tensor(1.0))


def test_a_path_that_comes_again_replaces_itself() -> None:
    ranking = Ranking(keep=2, scores={"a": torch.tensor(1.0), "b": torch.tensor(2.0)}).with_path("b", torch.tensor(0.5))
    assert {path: float(score) for path, score in ranking.scores.items()} == {"a": 1.0, "b": 0.5}


def test_scores_do_not_change_with_the_metric_they_came_from() -> None:
    metric = torch.tensor(1.0, requires_grad=True)
    ranking = Ranking().with_path("a", metric)
    with torch.no_grad():
        metric.add_(1)
    assert float(ranking.scores["a"]) == 1.0
    assert not ranking.scores["a"].requires_grad


def test_what_is_gone_leaves_the_ranking() -> None:
    ranking = Ranking(keep=2, scores={"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    assert ranking.only({"b", "c"}).scores == {"b": ranking.scores["b"]}
