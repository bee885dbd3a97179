"""`RankState`: what each rank keeps for itself in a checkpoint: positions in its loaders, its sums of metrics, its batch."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class RankState:
    """An entry of a checkpoint that differs from rank to rank.

    Args:
        feeds: Stage → state of the feed.
        metrics: This rank's sums.
        batch: The batch in progress, encoded, where the checkpoint is written inside one; in a list, since it may be anything.
    """

    per_rank: ClassVar[bool] = True

    def __init__(self, feeds: Mapping[str, Any] | None = None, metrics: Mapping[str, Any] | None = None, batch: Sequence[Any] = ()) -> None:
        self.feeds = dict(feeds or {})
        self.metrics: list[Mapping[str, Any]] = [metrics] if metrics else []
        self.batch = list(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        metrics = self.metrics[0] if self.metrics else {}
        return {"feeds": self.feeds, "metrics": metrics, "batch": self.batch, "rank_invariant": True}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over this rank's; of a run with fewer ranks, rank 0's."""
        self.feeds = dict(state_dict["feeds"])
        self.batch = list(state_dict.get("batch", ()))
        if not self.metrics:
            self.metrics = [state_dict["metrics"]]

    def load_rank_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take over the sums of all saved ranks, which are added up where their number differs."""
        self.metrics = [state["metrics"] for state in states]
