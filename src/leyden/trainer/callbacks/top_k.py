"""`Ranking`: which checkpoints are the k best. Pure: it holds paths and scores, and touches no file.

A ranking is a value: `with_path` returns another one. So a save that fails leaves the one before in its place.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The k best checkpoints so far.

    Args:
        mode: Whether less or more is better.
        keep: How many to keep; -1 keeps all, 0 none.
        scores: Path → score; the order is that in which they came.
    """

    mode: Mode = "min"
    keep: int = 1
    scores: dict[str, Tensor] = field(default_factory=dict)

    def accepts(self, score: Tensor) -> bool:
        """Return whether a checkpoint of this score would be among the best; a tie with the worst is not.

        Example:
            >>> ranking = Ranking(scores={"a": torch.tensor(2.0)})
            >>> [ranking.accepts(torch.tensor(score)) for score in (1.0, 2.0, float("nan"))]
            [True, False, False]
        """
        if self.keep == -1 or len(self.scores) < self.keep:
            return True
        worst = self.worst
        return self.keep > 0 and worst is not None and self._key(comparable(score, self.mode)) < self._key(self.scores[worst])

    @property
    def doomed(self) -> str | None:
        """The path that would have to go for another one."""
        return self.worst if self.keep > 0 and len(self.scores) >= self.keep else None

    @property
    def best(self) -> str | None:
        """The best path; of equals the one that came first."""
        return min(self.scores, key=lambda path: self._key(self.scores[path]), default=None)

    @property
    def worst(self) -> str | None:
        """The worst path; of equals the one that came first."""
        return max(self.scores, key=lambda path: self._key(self.scores[path]), default=None)

    @property
    def kth(self) -> str | None:
        """The k-th best path: the one to beat; `None` while there is room."""
        return self.worst if self.keep == -1 or len(self.scores) >= self.keep else None

    def with_path(self, path: str, score: Tensor) -> "Ranking":
        """Return the ranking with one more checkpoint, without the one that has to go for it."""
        scores = {name: value for name, value in self.scores.items() if name != path}
        if path not in self.scores and (doomed := self.doomed) is not None:
            del scores[doomed]
        return replace(self, scores={**scores, path: comparable(score, self.mode)})

    def only(self, paths: set[str]) -> "Ranking":
        """Return the ranking of those of its checkpoints that are in `paths`."""
        return replace(self, scores={path: score for path, score in self.scores.items() if path in paths})

    def _key(self, score: Tensor) -> float:
        value = float(score)
        return value if self.mode == "min" else -value


def comparable(score: Tensor, mode: Mode) -> Tensor:
    """Return a score as it is kept: on the CPU, without gradient, NaN as the worst there is."""
    kept = score.detach().to("cpu", copy=True)
    return worst_score(mode, kept.dtype) if math.isnan(float(kept)) else kept


def worst_score(mode: Mode, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return what every score beats."""
    return torch.tensor(math.inf if mode == "min" else -math.inf, dtype=dtype)
