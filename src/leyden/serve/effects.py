"""What the router speaks of: calls and workers that it is told about, and the effects that it asks for.

A call is the front end's own object, one per request; the router needs the few attributes of `Call` and hands the same
object back in its effects. Nothing here does anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

Why: TypeAlias = Literal["disconnect", "deadline", "shutdown"]


class CallState(StrEnum):
    """Where the item of a call is. A call that ended keeps `STAGED` or `RUNNING` until its worker lets go of the item."""

    QUEUED = "queued"
    STAGED = "staged"  # sent to a worker, its batch not begun
    RUNNING = "running"
    ENDED = "ended"


class WorkerId(NamedTuple):
    """Which worker: by API too, so that two APIs never share an entry."""

    api: int
    index: int


class Call(Protocol):
    """What the router needs of a request.

    The front end sets the first six before `Router.submit`; the router sets the others, which the front end may read.

    Attributes:
        id: Greater than that of every earlier call of this front end.
        api: Index of the API.
        num_bytes: Length of the body, which the front end holds until the call ends.
        deadline: When the client stops waiting, on the router's clock; `math.inf` if it named no time.
        is_idempotent: Whether it may run again when its worker is lost.
        is_answering: Whether a byte of the answer went to the client: then it never runs again.
        state: Where its item is.
        is_open: Whether it has not ended yet.
        is_retry: Whether it runs again after a lost worker.
        arrival: When it was submitted.
        since: When it began to wait, or to run.
        worker: Who has its item.
    """

    id: int
    api: int
    num_bytes: int
    deadline: float
    is_idempotent: bool
    is_answering: bool
    state: CallState
    is_open: bool
    is_retry: bool
    arrival: float
    since: float
    worker: WorkerId | None


CallT = TypeVar("CallT", bound=Call)


class WorkerShape(NamedTuple):
    """What a worker said of itself when it became ready.

    Attributes:
        max_batch_size: Most calls of one batch.
        concurrency: Most calls that run side by side, where there are no batches (async hooks, continuous batching).
        takes_work: False while it drains: it finishes what it has and gets nothing new.
    """

    max_batch_size: int = 1
    concurrency: int = 1
    takes_work: bool = True

    @property
    def width(self) -> int:
        """How many calls it computes at once."""
        return max(self.max_batch_size, self.concurrency)


@dataclass(slots=True)  # made for each batch: a NamedTuple takes twice as long
class Timing:
    """What a worker measured for one batch, or for one call without batches.

    Attributes:
        num_items: Calls of the batch.
        seconds: Decode, predict and encode together.
    """

    num_items: int
    seconds: float


class Dispatch(NamedTuple, Generic[CallT]):
    """Send calls to a worker, in this order.

    Attributes:
        worker: To whom. It may have gone in the same turn: then a later effect says what becomes of the calls.
        calls: One batch; or, where `max_batch_size` is 1, calls that each run by themselves.
        closes_batch: Whether the last one closes a batch (`LAST_OF_BATCH`).
    """

    worker: WorkerId
    calls: Sequence[CallT]
    closes_batch: bool


class Fail(NamedTuple, Generic[CallT]):
    """Answer a call with an error. It has ended.

    Attributes:
        call: Which.
        status: HTTP status.
        code: Stable code of the error.
        message: The cause, for people.
        retry_after: Whole seconds after which trying again makes sense; None where it does not.
        reason: What a refusal counts as, where the code does not tell.
    """

    call: CallT
    status: int
    code: str
    message: str
    retry_after: int | None = None
    reason: str = ""


class CancelOnWorker(NamedTuple, Generic[CallT]):
    """Tell a worker that nobody waits for a call any more. Its slot stays taken until the item really ends."""

    worker: WorkerId
    call: CallT
    why: Why


class Wake(NamedTuple):
    """Tell whoever starts workers that a call waits for an API that has none; once, until one comes or nothing waits any more."""

    api: int


class Kill(NamedTuple):
    """End a worker: it goes on with what it was told to leave, and nobody waits for anything that it began before that."""

    worker: WorkerId


Effect: TypeAlias = Dispatch[CallT] | Fail[CallT] | CancelOnWorker[CallT] | Wake | Kill
