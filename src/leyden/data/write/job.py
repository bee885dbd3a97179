"""`DatasetJob`: from arguments that are checked to a committed version, whoever and however many do the units."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.core.storage import Storage
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.versions import exists_error, honours_conditions
from leyden.data.write.arguments import TOLD_CHARACTERS, TOLD_INPUTS, listed_inputs
from leyden.data.write.described import describe
from leyden.data.write.engines.choose import DoUnits
from leyden.data.write.feeding import SpooledInputs
from leyden.data.write.finalise import Ending, Report
from leyden.data.write.journal import Journal
from leyden.data.write.layouts import Layout
from leyden.data.write.plan import STREAMED, Plan, cut_into_units, digest_of_inputs, job_id, work_digest
from leyden.data.write.running import Running, drive
from leyden.data.write.status import tell_of_others
from leyden.data.write.streaming import StreamedFeed
from leyden.data.write.streams import InputStream
from leyden.data.write.unit import Task


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetJob:
    """What `optimize` is asked for.

    Args:
        layout: Finds and commits versions.
        task: What units have in common; `job` and `cipher` are filled in here.
        inputs: All of them, or a stream.
        weights: What each costs.
        mode: `None`, `append` or `overwrite`.
        arguments: Those that change bytes, beside the function and the inputs.
        running: How units are done.
        do_units: By whom.
        is_alone: Whether no other driver runs this call.
        resume: Whether an unfinished job goes on, and a finished one is not done again.
    """

    layout: Layout
    task: Task
    inputs: "Sequence[Any] | InputStream"
    weights: Sequence[float] | None
    mode: str | None
    arguments: Mapping[str, Any]
    running: Running
    do_units: DoUnits
    is_alone: bool
    resume: bool

    def run(self) -> Report:
        """Do the job, go on with it, or find that it was done.

        Raises:
            DatasetExistsError: There is a dataset, and no mode.
            ConfigError: Another driver computed other inputs, or the store is not fit for several drivers.
            UnitFailedError: An input failed, and the policy is to raise.
        """
        if not isinstance(self.inputs, InputStream):
            return self._run_listed(self.inputs)
        if not self.layout.newest():
            return self._run_streamed(self.inputs)
        with contextlib.closing(SpooledInputs(self.inputs)) as spooled:  # whether the version was made already depends on all of them
            return self._run_listed(listed_inputs(spooled))

    def _run_listed(self, inputs: Sequence[Any]) -> Report:
        digest = digest_of_inputs(inputs)
        work = self._work(digest)
        done = self.layout.made_already(work, self.mode) if self.resume else None
        if done is not None and self.layout.has_key(self.task.encryption):
            return done
        plan = Plan(job_id(work, self.layout.times_made(work)), len(inputs), digest, cut_into_units(len(inputs), self.weights))
        told = {"count": len(inputs), "digest": digest, "first": [f"{item!r}"[:TOLD_CHARACTERS] for item in inputs[:TOLD_INPUTS]]}
        journal, first = self._begin(plan, work, told)
        self.do_units(journal, plan, inputs, self._task_of(plan, first), self.running)
        return self._finish(journal, plan, self._ending(work, first, told))

    def _run_streamed(self, values: InputStream) -> Report:
        """Do units while inputs come. Without a dataset there, nothing can have been made already."""
        work = self._work(STREAMED)
        journal, first = self._begin(Plan.streamed(job_id(work, 0)), work, {"first": []})
        with contextlib.closing(StreamedFeed(journal, values)) as feed:
            drive(journal, feed, self._task_of(Plan.streamed(journal.job), first), self.running)
            listed_inputs(range(feed.inputs()))  # none at all are refused
            plan = feed.plan()
            return self._finish(journal, plan, self._ending(self._work(plan.inputs_digest), first, feed.told()))

    def _finish(self, journal: Journal, plan: Plan, ending: Ending) -> Report:
        report = self.layout.finish(journal, plan, ending)
        journal.end(report._asdict())
        return report

    @functools.cached_property
    def _function(self) -> dict[str, Any]:
        return describe(self.task.function)

    def _work(self, digest: str) -> str:
        return work_digest("append" if self.mode == "append" else "create", self._function, digest, self.arguments)

    def _begin(self, plan: Plan, work: str, told: Mapping[str, Any]) -> tuple[Journal, Mapping[str, Any]]:
        """Write the plan, and return the journal and the plan of the driver that came first."""
        base = self.layout.newest()
        if base and self.mode is None:
            raise exists_error(self.layout.storage.url)
        if not self.is_alone:
            check_several(self.layout.storage, resume=self.resume)
        journal = Journal(self.layout.storage, plan.job)
        if not self.resume:
            journal.drop()
        about = {
            "function": self._function,
            "operation": self.mode or "create",
            "inputs": told,
            "arguments": dict(self.arguments),
        }
        tell_of_others(journal, about)
        self.layout.check_kind(self.mode, is_tokens=self.task.settings.token_dtype is not None)
        cipher = self.layout.cipher(self.task.encryption, self.mode)
        journal.begin(plan, {"about": about, "work": work, "cipher": cipher, "base": base})
        first = journal.plan()
        self._check_key(journal.job, first["cipher"])
        return journal, first

    def _check_key(self, job: str, cipher: Mapping[str, Any] | None) -> None:
        """Refuse to go on under another key than the one that a job was begun with."""
        if cipher is None:
            return
        try:
            DatasetCiphers(self.task.encryption, cipher)
        except ConfigError as error:
            raise ConfigError(f"job {job} was begun with another key and is not finished: {error} Or pass resume=False.") from error

    def _task_of(self, plan: Plan, first: Mapping[str, Any]) -> Task:
        return dataclasses.replace(self.task, job=plan.job, cipher=first["cipher"])

    def _ending(self, work: str, first: Mapping[str, Any], told: Mapping[str, Any]) -> Ending:
        return Ending(
            work=work,
            mode=self.mode,
            base=int(first["base"]),
            settings=self.task.settings,
            cipher=first["cipher"],
            on_error=self.task.on_error,
            about={**first["about"], "inputs": told},
        )


def check_several(storage: Storage, *, resume: bool) -> None:
    """Refuse what several drivers cannot do together.

    Raises:
        ConfigError: The store ignores conditional writes, or the job is to begin anew.
    """
    if not honours_conditions(storage):
        raise ConfigError(f"{storage.url}: this store ignores conditional writes: run one driver with engine='local'.")
    if not resume:
        raise ConfigError("resume=False is for one driver: the others would drop what it does. Leave it out.")
