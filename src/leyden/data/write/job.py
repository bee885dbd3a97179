"""`DatasetJob`: from arguments that are checked to a committed version, whoever and however many do the units."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.core.storage import Storage
from leyden.data.format.versions import exists_error, honours_conditions
from leyden.data.write.engines.choose import DoUnits
from leyden.data.write.finalise import Ending, Report
from leyden.data.write.journal import Journal
from leyden.data.write.layouts import Layout
from leyden.data.write.plan import Plan, cut_into_units, describe, digest_of_inputs, job_id, work_digest
from leyden.data.write.running import Running
from leyden.data.write.unit import Task

_TOLD_INPUTS, _TOLD_CHARACTERS = 3, 200


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetJob:
    """What `optimize` is asked for.

    Args:
        layout: Finds and commits versions.
        task: What units have in common; `job` and `cipher` are filled in here.
        inputs: All of them.
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
    inputs: Sequence[Any]
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
        digest = digest_of_inputs(self.inputs)
        work = work_digest("append" if self.mode == "append" else "create", self.task.function, digest, self.arguments)
        done = self.layout.made_already(work, self.mode) if self.resume else None
        if done is not None:
            return done
        base = self.layout.newest()
        if base and self.mode is None:
            raise exists_error(self.layout.storage.url)
        if not self.is_alone:
            check_several(self.layout.storage, resume=self.resume)
        borders = cut_into_units(len(self.inputs), self.weights)
        plan = Plan(job_id(work, self.layout.times_made(work)), len(self.inputs), digest, borders)
        journal = Journal(self.layout.storage, plan.job)
        if not self.resume:
            journal.drop()
        about = {"function": describe(self.task.function), "inputs": told_inputs(self.inputs, digest), "arguments": dict(self.arguments)}
        cipher = self.layout.cipher(self.task.encryption, self.mode)
        journal.begin(plan, {"about": about, "work": work, "cipher": cipher, "base": base})
        first = journal.plan()  # of the driver that came first
        task = dataclasses.replace(self.task, job=plan.job, cipher=first["cipher"])
        self.do_units(journal, plan, self.inputs, task, self.running)
        return self.layout.finish(journal, plan, self._ending(work, first))

    def _ending(self, work: str, first: Mapping[str, Any]) -> Ending:
        return Ending(
            work=work,
            mode=self.mode,
            base=int(first["base"]),
            settings=self.task.settings,
            cipher=first["cipher"],
            on_error=self.task.on_error,
            about=first["about"],
        )


def told_inputs(inputs: Sequence[Any], digest: str) -> dict[str, Any]:
    """Return what a plan and a version say of the inputs."""
    return {"count": len(inputs), "digest": digest, "first": [f"{item!r}"[:_TOLD_CHARACTERS] for item in inputs[:_TOLD_INPUTS]]}


def check_several(storage: Storage, *, resume: bool) -> None:
    """Refuse what several drivers cannot do together.

    Raises:
        ConfigError: The store ignores conditional writes, or the job is to begin anew.
    """
    if not honours_conditions(storage):
        raise ConfigError(f"{storage.url}: this store ignores conditional writes: run one driver with engine='local'.")
    if not resume:
        raise ConfigError("resume=False is for one driver: the others would drop what it does. Leave it out.")
