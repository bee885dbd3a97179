"""`StreamingDataLoader`: batches of a dataset, the same for any number of ranks and workers, from where a state was taken."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, final

from leyden.core.arguments import flag, number, one_of, positive, whole
from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.core.optional import require
from leyden.data.loader.arguments import batch_sizes, checked_context, checked_function, checked_last_batch, refuse
from leyden.data.loader.collate import Collator, RaggedChoice
from leyden.data.loader.pin import pinned, pins
from leyden.data.loader.processes import ProcessRunner
from leyden.data.loader.runner import InlineRunner, Runner, ThreadRunner, Watch
from leyden.data.loader.trace import span, trace_of
from leyden.data.loader.trays import LastBatch, Steps, TraySize, tasks
from leyden.data.loader.work import Work, batches_of
from leyden.data.order.lanes import slice_for
from leyden.data.placement import check_enough
from leyden.data.read.cursor import Cursor
from leyden.data.read.iteration import Share
from leyden.data.read.states import Position, state_of
from leyden.data.read.stream import Stream
from leyden.data.read.streamed import Streamed

_log = logging.getLogger(__name__)
WorkerKind = Literal["auto", "threads", "processes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Workers:
    """How trays are made."""

    count: int
    kind: WorkerKind
    prefetch: int
    watch: Watch
    context: Any
    init: Callable[[int], Any] | None
    profile: Path | None


@final
class StreamingDataLoader:  # noqa: SIZE003 - the documented interface
    """Batches of a dataset.

    Args:
        dataset: A `StreamingDataset`, `CombinedStreamingDataset` or `ParallelStreamingDataset`.
        batch_size: Samples of a batch of this rank; 1 by default.
        num_workers: How many workers read ahead; 0 reads in this thread.
        shuffle: Whether each epoch has an order of its own; the dataset's by default.
        drop_last: Whether the last samples that fill no batch are left out; the dataset's by default.
        collate_fn: Makes a batch of a list of samples, in the place of `default_collate`.
        prefetch_factor: How many trays (some batches) each worker is ahead; 2 by default.
        pin_memory: Whether batches lie in page-locked memory, from which they are copied to a GPU while it works.
        pin_memory_device: Without effect: memory is pinned for the current accelerator.
        persistent_workers: Whether workers stay between epochs.
        timeout: Seconds to wait for a batch; 0 is any time.
        worker_init_fn: Called in each worker process with its number.
        multiprocessing_context: How worker processes are started: `"forkserver"`, `"spawn"`, `"fork"`.
        generator: Not accepted: the order is the dataset's.
        sampler: Not accepted.
        batch_sampler: Not accepted.
        worker_kind: `"threads"` or `"processes"`; by default threads where no code of the user's runs.
        global_batch_size: Samples of a batch of all ranks together, in the place of `batch_size`.
        last_batch: What becomes of the last samples that fill no batch: `"drop"`, `"partial"`, or `"pad"` with others.
        output: Whether arrays become torch tensors or numpy arrays; the dataset's by default.
        ragged: What becomes of arrays of several shapes in one batch: `"error"`, `"list"`, `"nested"`, or a number to pad with.
        binary: Whether bytes are objects, `"bytes"`, or memoryviews of what was read, `"view"`: no copy of each.
        profile_batches: For how many batches the workers' stages are traced into `result.json`; `True` is all.
        profile_skip_batches: How many batches before are left out.
        profile_dir: Where traces and profiles go; the current folder by default.
        profile_cprofile: Whether Python's own profiler runs in the worker processes.
        stall_seconds: After how long one is told what is waited for.

    Raises:
        ConfigError: Arguments are not accepted, or contradict each other.

    Example:
        ```python
        loader = StreamingDataLoader(StreamingDataset("train", shuffle=True), batch_size=64, num_workers=4)
        for batch in loader:
            save({"data": loader.state_dict()})
        ```
    """

    is_sharded = True  # inject no sampler
    sampler: None = None
    batch_sampler: None = None

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        dataset: Streamed,
        *,
        batch_size: int | None = None,
        num_workers: int = 0,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        prefetch_factor: int | None = None,
        pin_memory: bool = False,
        pin_memory_device: str = "",
        persistent_workers: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        profile_batches: "int | bool" = False,
        profile_skip_batches: int = 0,
        profile_dir: "str | os.PathLike[str] | None" = None,
        profile_cprofile: bool = False,
        worker_kind: WorkerKind = "auto",
        global_batch_size: int | None = None,
        last_batch: Literal["auto", "drop", "partial", "pad"] = "auto",
        output: Literal["torch", "numpy"] | None = None,
        ragged: RaggedChoice = "error",
        binary: Literal["bytes", "view"] = "bytes",
        stall_seconds: float = 60.0,
    ) -> None:
        if not isinstance(dataset, Streamed):
            raise ConfigTypeError(
                f"dataset={dataset!r:.80} is not accepted: StreamingDataLoader reads StreamingDataset, CombinedStreamingDataset and "
                "ParallelStreamingDataset. Use torch.utils.data.DataLoader for others."
            )
        refuse(generator=generator, sampler=sampler, batch_sampler=batch_sampler)
        del pin_memory_device
        self.dataset = dataset
        self.batch_size, self._global_size = batch_sizes(batch_size, global_batch_size)
        if shuffle is not None:
            dataset.set_shuffle(flag("shuffle", shuffle))
        if drop_last is not None:
            dataset.set_drop_last(flag("drop_last", drop_last))
        if output is not None:
            dataset.set_output(output)
        dataset.set_binary(binary)
        if dataset.output == "torch":
            require("torch", purpose='output="torch"; output="numpy" needs none')
        self.num_workers = whole("num_workers", num_workers, 0)
        self.prefetch_factor = whole("prefetch_factor", 2 if prefetch_factor is None else prefetch_factor, 1)
        self.collate_fn, self.timeout = checked_function("collate_fn", collate_fn), number("timeout", timeout, 0)
        self.persistent_workers = flag("persistent_workers", persistent_workers)
        self.pin_memory = pin_memory
        self._pins = pins(pin_memory)
        self._last: LastBatch | Literal["auto"] = checked_last_batch(last_batch, drop_last)
        self._is_last_given = last_batch != "auto" or dataset.drop_last is not None
        self._collator = Collator(dataset.output, ragged)
        self._workers = _Workers(
            count=self.num_workers,
            kind=one_of("worker_kind", worker_kind, ("auto", "threads", "processes")),
            prefetch=self.prefetch_factor,
            watch=Watch(self.timeout, positive("stall_seconds", stall_seconds)),
            context=checked_context(multiprocessing_context),
            init=checked_function("worker_init_fn", worker_init_fn),
            profile=Path(profile_dir or Path.cwd()) if profile_cprofile else None,
        )
        self._trace = trace_of(profile_batches, profile_skip_batches, profile_dir, cprofile=profile_cprofile, num_workers=num_workers)
        self._cursor = Cursor(epoch=1)
        self._current_epoch = 0
        self._started = False  # whether the epoch at the cursor was begun by an `iter`
        self._runner: tuple[Any, Runner] | None = None
        self._iteration: object = None  # which one is at work
        self.num_padding = 0

    @property
    def drop_last(self) -> bool:
        """Whether the last samples that fill no batch are left out."""
        return self._last_now() == "drop"

    @property
    def current_epoch(self) -> int:
        """The number of the epoch at work; 0 before the first."""
        return self._current_epoch

    def __len__(self) -> int:
        steps = self._steps(Position(epoch=self._cursor.epoch))
        rows = self.dataset.rows_in(steps.epoch, steps.size)
        if rows is None:
            raise TypeError("this dataset has no end, so the loader has no length. Give length=… a number.")
        return steps.count(rows)

    def __iter__(self) -> Iterator[Any]:
        if self._started and self._cursor.loaded is None:
            self._cursor.position = Position(epoch=self._cursor.epoch + 1)
        position = self._cursor.begin()
        if position.within:
            raise StateError(
                "the state was taken inside a batch of a bare dataset, and a loader begins with whole batches. Take it between batches."
            )
        self._started, self._current_epoch = True, position.epoch
        self.dataset.begin(position)
        self._iteration = mine = object()
        steps = self._steps(position)
        if steps.last == "drop":
            check_enough(self.dataset.rows_in(steps.epoch, steps.size), self.dataset.place)
        return self._batches(steps, mine)

    def _batches(self, steps: Steps, mine: object) -> Iterator[Any]:
        self._tell_last(steps)
        runner: Runner | None = None
        try:
            while True:
                revision = self.dataset.revision
                stream = self.dataset.stream(steps.size)
                runner = self._runner_for(stream, steps) if runner is None else runner
                yield from self._run(runner, steps, stream, mine)
                if revision == self.dataset.revision:
                    break
                steps = steps._replace(consumed=self._cursor.position.consumed)  # the weights changed: the rest is planned anew
                self.dataset.settle(self._cursor.position)
                runner.renew(self._work(self.dataset.stream(steps.size), steps))
            if self._trace is not None:
                self._trace.write()
            if self._iteration is mine:
                self._cursor.position, self._started = Position(epoch=steps.epoch + 1), False
        finally:
            if self._iteration is mine:  # or what is on its way belongs to the iteration that came after
                self.dataset.forget_ahead()
                if runner is not None:
                    self._let_go(runner)

    def _run(self, runner: Runner, steps: Steps, stream: Stream, mine: object) -> Iterator[Any]:
        """Yield batches until the end, or until what is planned does not hold any more."""
        revision = self.dataset.revision
        low, high = slice_for(steps.rank, steps.world_size, steps.size)
        size = TraySize(high - low, self.dataset.row_bytes, is_single=not runner.work.is_plain)
        coming = tasks(steps, stream, size)
        ahead = self.dataset.look_ahead(_share_of(steps, high - low), stream)
        while True:
            while runner.room() and (task := next(coming, None)) is not None:
                if ahead is not None:
                    ahead.advance(len(task.rows))
                runner.give(task)
            if runner.is_empty():
                return
            start = time.perf_counter()
            task, made = runner.take()
            if self._trace is not None:
                self._trace.add((*made.spans, span("wait for a tray", start)))
            size.learn(made.row_bytes(len(task.rows)))
            batch_of = batches_of(made, task, self._collator)
            for index, consumed in enumerate(task.consumed):
                if self._iteration is not mine:
                    raise StateError("another iteration of this loader began; this one is over. Make a second loader to read two at once.")
                batch = batch_of(index)
                if self._trace is not None:
                    self._trace.count_batch()
                self._cursor.position = Position(epoch=steps.epoch, consumed=consumed)
                self.num_padding = task.padding if index == len(task.consumed) - 1 else 0
                yield pinned(batch) if self._pins else batch
                del batch  # or its memory is held while the next one is made
                if self.dataset.revision != revision:
                    return
            del made, batch_of

    def _runner_for(self, stream: Stream, steps: Steps) -> Runner:
        # Worker processes keep what they were started with: other data, another order or another rank needs other ones.
        key = (self.dataset.identity()["order"], [id(reading) for reading in self.dataset.readings], self.dataset.place)
        if self._runner is not None:
            before, runner = self._runner
            if before == key:
                runner.renew(self._work(stream, steps))
                return runner
            runner.close()
        runner = self._new_runner(self._work(stream, steps))
        self._runner = (key, runner)
        return runner

    def _new_runner(self, work: Work) -> Runner:
        workers = self._workers
        if not workers.count:
            return InlineRunner(work, workers.watch)
        if self._kind(work) == "threads":
            return ThreadRunner(work, workers.watch, workers.count, workers.prefetch)
        return ProcessRunner(work, workers.watch, workers.count, workers.prefetch, workers.context, workers.init, workers.profile)

    def _kind(self, work: Work) -> str:
        kind = self._workers.kind
        is_private = any(reading.is_private for reading in self.dataset.readings)
        if kind == "processes" and is_private:
            raise ConfigError("worker processes find remote blocks in the disk's cache: pass max_cache_size > 0, or worker_kind='threads'.")
        if kind == "auto":
            kind = (
                "threads" if is_private or (work.is_plain and self._workers.init is None and self._workers.profile is None) else "processes"
            )
        if kind == "threads" and work.uses_globals:
            raise ConfigError(
                "worker_kind='threads' with a transform that takes no rng: it may draw from global generators, which all threads share. "
                "Let it take (sample, rng), or pass worker_kind='processes', which needs max_cache_size > 0 for remote data."
            )
        return kind

    def _work(self, stream: Stream, steps: Steps) -> Work:
        return Work(
            stream=stream,
            collator=self._collator,
            transform=self.dataset.row_transform,
            collate_fn=self.collate_fn,
            batch_transform=self.dataset.batch_transform,
            is_remote=self.dataset.is_remote,
            rank=steps.rank,
        )

    def _let_go(self, runner: Runner) -> None:
        if self._runner is None or self._runner[1] is not runner:
            return
        if self.persistent_workers:
            runner.forget()
        else:
            self._runner = None
            runner.close()

    def _steps(self, position: Position) -> Steps:
        place = self.dataset.place
        size = self._global_size or self.batch_size * place.world_size
        if size < place.world_size:
            raise ConfigError(f"global_batch_size={size} for {place.world_size} ranks: it takes at least one sample for each.")
        return Steps(position.epoch, position.consumed, size, place.rank, place.world_size, self._last_now())

    def _last_now(self) -> LastBatch:
        if self._last != "auto":
            return self._last
        drop = self.dataset.drop_last
        return "drop" if drop or (drop is None and self.dataset.place.world_size > 1) else "partial"

    def _tell_last(self, steps: Steps) -> None:
        if self._global_size and steps.size % steps.world_size and steps.consumed == 0:
            warnings.warn(
                f"global_batch_size={steps.size} does not divide by {steps.world_size} ranks: their batches differ by one sample.",
                stacklevel=3,
            )
        if steps.world_size > 1 and steps.last == "partial":
            rows = self.dataset.stream(steps.size).rows_in(steps.epoch)
            rest = 0 if rows is None else rows % steps.size
            if rest:
                short = f", and {steps.world_size - rest} ranks get no last batch" if rest < steps.world_size else ""
                warnings.warn(
                    f"the last {rest} samples are shared by {steps.world_size} ranks: their last batches differ{short}.", stacklevel=3
                )

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its start; a loaded position of the same epoch stays."""
        self._cursor.set_epoch(epoch)
        self._started = False
        if self._cursor.loaded is None:
            self._cursor.reset()

    def set_placement(self, rank: int, world_size: int) -> None:
        """Say which share this process reads; what the dataset was given goes before."""
        self.dataset.set_placement(rank, world_size)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands, by batches handed out; the same on all ranks, and for any world size and workers."""
        position = self._cursor.loaded or self._cursor.position
        self.dataset.settle(position)
        steps = self._steps(position)
        share = _share_of(steps, self.batch_size)
        state = state_of(position, share, self.dataset.identity())
        return {**state, "num_samples_yielded": position.consumed // steps.world_size, "last_batch": steps.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where a state was taken, also with another world size, batch size or number of workers.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """
        self._cursor.load(self.dataset.adopt(state))
        if state.get("last_batch") and not self._is_last_given:
            self._last = one_of("last_batch", state["last_batch"], ("drop", "partial", "pad"))
        self._started = False

    def close(self) -> None:
        """End all workers, and the threads that fetch."""
        if self._runner is not None:
            self._runner[1].close()
            self._runner = None
        self.dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _share_of(steps: Steps, batch_size: int) -> Share:
    return Share(
        epoch=steps.epoch,
        consumed=steps.consumed,
        batch_size=batch_size,
        rank=steps.rank,
        world_size=steps.world_size,
        step_size=steps.size,
        drop_last=steps.last == "drop",
    )
