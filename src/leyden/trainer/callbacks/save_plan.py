"""What one save of `ModelCheckpoint` does: which file, which second name, what goes. Decided on rank 0, before anything is written.

| plan | a file of its own | `last` | ranks |
|---|---|---|---|
| `trigger` | if it is among the best, or without a metric the newest | yes | yes |
| `newest_state` (end of training) | no | yes | no |
| `unranked_file` (exceptions) | yes | yes | no |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor

from leyden.core.errors import closest, listed
from leyden.trainer.callbacks import checkpoint_files as on_disk
from leyden.trainer.callbacks import checkpoint_names as names
from leyden.trainer.callbacks.top_k import Mode, Ranking, comparable, worst_score

PATHS = ("best_model_score", "best_model_path", "current_score", "best_k_models", "kth_best_model_path", "kth_value", "last_model_path")
STEPS = ("handled_step", "written_step", "last_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one save does.

    Args:
        path: The file to write; `None`: no file of its own.
        last: The name that stands for the newest state from then on.
        remove: What goes, once that is done.
        state: Attributes of the saver as they are afterwards.
        is_trigger: Whether this is what the saver's rhythm asked for.
        problem: What is wrong, if something is.
        is_error: Whether that ends the run.
        report: What to tell who wants to know.
    """

    path: str | None = None
    last: str | None = None
    remove: tuple[str, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    is_trigger: bool = False
    problem: str = ""
    is_error: bool = False
    report: str = ""


class Saver(Protocol):
    """What a plan depends on."""

    CHECKPOINT_JOIN_CHAR: str
    CHECKPOINT_EQUALS_CHAR: str
    CHECKPOINT_NAME_LAST: str
    FILE_EXTENSION: str
    STARTING_VERSION: int
    dirpath: str | None
    filename: str | None
    monitor: str | None
    mode: Mode
    save_last: Any
    save_top_k: int
    auto_insert_metric_name: bool
    enable_version_counter: bool
    best_model_path: str
    best_k_models: dict[str, Tensor]
    last_model_path: str
    has_validated: bool
    resumed_from: str | None


@final
class Planner:
    """Plans the saves of one saver at one moment of a run; changes nothing.

    Args:
        saver: Whose saves.
        trainer: The run.
    """

    def __init__(self, saver: Saver, trainer: Any) -> None:
        self._saver = saver
        self._step: int = trainer.global_step
        # At the end of training all epochs are finished; a file is still named by the one it was made in.
        self._epoch: int = max(trainer.current_epoch - 1, 0) if trainer.run.hook == "on_train_end" else trainer.current_epoch
        self._metrics: dict[str, Any] = dict(trainer.callback_metrics)
        for name, value in (("epoch", self._epoch), ("step", self._step)):
            self._metrics[name] = int(self._metrics[name]) if name in self._metrics else value

    def trigger(self) -> Plan:
        """Plan what the rhythm asks for."""
        saver = self._saver
        if saver.save_top_k == 0:
            plan = Plan()
        elif saver.monitor is None:
            plan = self._newest_file()
        else:
            plan = self._ranked(saver.monitor) if saver.monitor in self._metrics else self._missing(saver.monitor)
        return self._with_last(replace(plan, is_trigger=True, state={**plan.state, "handled_step": self._step}))

    def newest_state(self) -> Plan:
        """Plan a refresh of `last` alone."""
        return self._with_last(Plan())

    def unranked_file(self) -> Plan:
        """Plan a file that takes no part in the ranking."""
        saver = self._saver
        path = self._free(self._stem(), known={saver.best_model_path, saver.last_model_path, *saver.best_k_models})
        return self._with_last(Plan(path=path, state={"written_step": self._step}, report=f"saved {path}"))

    def _newest_file(self) -> Plan:
        before = self._saver.best_model_path
        doomed = before if self._saver.save_top_k == 1 else ""
        path = self._free(self._stem(), known={before, self._saver.last_model_path}, doomed=doomed)
        state = {"best_model_path": path, "written_step": self._step}
        return Plan(path=path, remove=self._removable(doomed, path), state=state, report=f"{self._where()}: saved {path}")

    def _ranked(self, monitor: str) -> Plan:
        saver, score = self._saver, torch.as_tensor(self._metrics[monitor])
        ranking = Ranking(mode=saver.mode, keep=saver.save_top_k, scores=saver.best_k_models)
        current = {"current_score": comparable(score, saver.mode)}
        said = f"{self._where()}: {monitor!r} is {float(score):.5f}"
        if not ranking.accepts(score):
            return Plan(state=current, report=f"{said}, not in top {saver.save_top_k}")
        doomed = ranking.doomed or ""
        path = self._free(self._stem(), known={*saver.best_k_models, saver.last_model_path}, doomed=doomed)
        after = ranking.with_path(path, score)
        gone = self._removable(doomed, path) if doomed not in after.scores else ()
        state = {**current, **attributes_of(after), "written_step": self._step}
        return Plan(path=path, remove=gone, state=state, report=f"{said}, saved {path}")

    def _missing(self, monitor: str) -> Plan:
        known = [name for name in self._metrics if name not in ("epoch", "step")]
        problem = (
            f"`ModelCheckpoint(monitor={monitor!r})` could not find the monitored key in the logged metrics: {listed(known) or 'none'}."
            f"{closest(monitor, known)} Log it with `self.log({monitor!r}, value)`."
        )
        return Plan(problem=problem, is_error=self._saver.has_validated)

    def _with_last(self, plan: Plan) -> Plan:
        if not self._saver.save_last or plan.is_error:
            return plan
        before = self._saver.last_model_path
        last = self._free(fill_for(self._saver, self._saver.CHECKPOINT_NAME_LAST, self._metrics), known={plan.path or ""}, doomed=before)
        state = {**plan.state, "last_model_path": last, "last_step": self._step, "written_step": self._step}
        return replace(plan, last=last, remove=(*plan.remove, *self._removable(before, last)), state=state)

    def _stem(self) -> str:
        return fill_for(self._saver, self._saver.filename, self._metrics)

    def _free(self, stem: str, *, known: set[str], doomed: str = "") -> str:
        """Return the path of a name; with a version if another file has it. One that is about to go may be replaced."""
        saver = self._saver
        stems = names.versions(stem, first=saver.STARTING_VERSION, join=saver.CHECKPOINT_JOIN_CHAR)
        paths = (path_of(saver, each) for each in stems)
        if not saver.enable_version_counter:
            return next(paths)
        return names.first_free(paths, lambda path: path != doomed and (path in known or on_disk.exists(path)))

    def _removable(self, path: str, replacement: str) -> tuple[str, ...]:
        """Return the path if it may be removed: one of ours that nobody resumes from."""
        saver = self._saver
        if not path or path == replacement or saver.dirpath is None or not names.lies_in(path, saver.dirpath):
            return ()
        is_resumed = saver.resumed_from is not None and on_disk.same_place(path, saver.resumed_from)
        return () if is_resumed else (path,)

    def _where(self) -> str:
        return f"Epoch {self._epoch}, global step {self._step}"


def attributes_of(ranking: Ranking) -> dict[str, Any]:
    """Return a saver's documented attributes for a ranking."""
    best, kth = ranking.best, ranking.kth
    return {
        "best_k_models": ranking.scores,
        "best_model_path": best or "",
        "best_model_score": ranking.scores[best] if best else None,
        "kth_best_model_path": kth or "",
        "kth_value": ranking.scores[kth] if kth else worst_score(ranking.mode),
    }


def fill_for(saver: Saver, template: str | None, metrics: Mapping[str, Any]) -> str:
    """Return a file name of a saver without its extension; without a template the default one."""
    if template is None:
        template = f"{{epoch}}{saver.CHECKPOINT_JOIN_CHAR}{{step}}"
    return names.fill(template, metrics, inserts_names=saver.auto_insert_metric_name, equals=saver.CHECKPOINT_EQUALS_CHAR)


def path_of(saver: Saver, stem: str) -> str:
    """Return the path of a name."""
    return names.join(saver.dirpath, stem + saver.FILE_EXTENSION)
