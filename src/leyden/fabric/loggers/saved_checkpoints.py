"""What a checkpoint callback has saved, for loggers that upload checkpoints (`log_model`)."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from leyden.core.errors import ConfigError

LogModel = Literal["all"] | bool


class SavedCheckpoint(NamedTuple):
    """A checkpoint file or directory, its score if it has one, and its names: `latest`, `best`."""

    path: Path
    score: float | None
    aliases: list[str]


class CheckpointScan:
    """Finds checkpoints that were not uploaded yet.

    Args:
        log_model: `True` uploads when the run ends, `"all"` whenever one is saved, `False` never.

    Raises:
        ConfigError: Another value.
    """

    def __init__(self, log_model: LogModel) -> None:
        if log_model not in (True, False, "all"):
            raise ConfigError(f"log_model={log_model!r} is not accepted. Use True (at the end), 'all' (each as it is saved) or False.")
        self.log_model = log_model
        self._seen: dict[str, int] = {}
        self._callback: Any = None

    def saved(self, callback: Any) -> list[SavedCheckpoint]:
        """Return what to upload now that `callback` has saved a checkpoint."""
        if self.log_model == "all":
            return self._new(callback)
        self._callback = callback if self.log_model else None
        return []

    def finished(self, status: str) -> list[SavedCheckpoint]:
        """Return what to upload now that the run has ended."""
        return self._new(self._callback) if self._callback is not None and status == "success" else []

    def _new(self, callback: Any) -> list[SavedCheckpoint]:
        scores: dict[str, Any] = {str(path): score for path, score in getattr(callback, "best_k_models", {}).items()}
        best, last = str(getattr(callback, "best_model_path", "")), str(getattr(callback, "last_model_path", ""))
        for path, score in ((best, getattr(callback, "best_model_score", None)), (last, getattr(callback, "current_score", None))):
            if path:
                scores.setdefault(path, score)
        found = []
        for name, score in scores.items():
            path = Path(name)
            if not path.exists() or self._seen.get(name) == path.stat().st_mtime_ns:
                continue
            self._seen[name] = path.stat().st_mtime_ns
            aliases = [alias for alias, is_it in (("latest", name == last or not last), ("best", name == best)) if is_it]
            found.append(SavedCheckpoint(path, None if score is None else float(score), aliases))
        return sorted(found, key=lambda checkpoint: self._seen[str(checkpoint.path)])
