"""Counters of all processes of a server without a lock: a page of numbers for each writer, added up when somebody asks.

A page is shared anonymous memory, made before the front ends are forked. It has one writer, so adding is a load and a store;
readers may see a sum that is a moment old, never a torn one (an aligned float64 is written at once). What the slots mean is the
`Layout`, which follows from the API paths alone, so that all processes agree on it.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, final

from leyden.core.errors import ConfigError, listed

PREFIX = "leyden_serve_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["counter", "gauge", "histogram"]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_SLOT_BYTES = 8


class Metric(NamedTuple):
    """A family of numbers.

    Args:
        name: Without the prefix.
        kind: `counter`, `gauge` or `histogram`.
        help: One line.
        label: The name of a label beside `api`; empty if there is none.
        values: What that label may be; others count as the last.
        buckets: The upper bounds of a histogram, ascending.
    """

    name: str
    kind: Kind
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


STATUSES = ("200", "204", "400", "401", "404", "405", "408", "413", "415", "422", "429", "431", "500", "503", "504", "other")
REASONS = ("queue", "bytes", "wait", "draining", "not_ready", "key", "size", "head", "slow", "path", "invalid", "other")
METRICS = (
    Metric("requests_total", "counter", "Requests that were answered, by status.", "status", STATUSES),
    Metric("request_seconds", "histogram", "From the first byte of a request to the last of its answer.", buckets=SECONDS),
    Metric("queue_seconds", "histogram", "From the arrival of a request until its computation starts.", buckets=SECONDS),
    Metric("predict_seconds", "histogram", "In predict, once for each batch.", buckets=SECONDS),
    Metric("first_chunk_seconds", "histogram", "Until the first chunk of a stream.", buckets=SECONDS),
    Metric("batch_size", "histogram", "Items of a batch.", buckets=SIZES),
    Metric("queue_depth", "gauge", "Requests that wait for a worker."),
    Metric("inflight", "gauge", "Requests that are not answered yet."),
    Metric("inflight_bytes", "gauge", "Bytes of their bodies."),
    Metric("workers", "gauge", "Worker processes, by state.", "state", ("starting", "ready", "draining", "backoff", "failed")),
    Metric("worker_restarts_total", "counter", "Workers that were started again."),
    Metric("worker_hangs_total", "counter", "Times that a worker said nothing for a minute, and had requests."),
    Metric("rejected_total", "counter", "Requests that were refused before any worker saw them.", "reason", REASONS),
    Metric("expired_total", "counter", "Requests that waited or ran for too long."),
    Metric("cancelled_total", "counter", "Requests that were given up.", "reason", ("disconnect", "deadline", "shutdown", "other")),
    Metric("stream_chunks_total", "counter", "Chunks of streams."),
    Metric("log_dropped_total", "counter", "Values for loggers that were dropped, as they came too fast."),
    Metric("tokens_total", "counter", "Tokens that specs counted.", "kind", ("prompt", "completion", "other")),
)
_OF_ALL = frozenset({"requests_total", "rejected_total"})  # what is counted for requests that are no API's, too


@final
class Layout:
    """Which slot holds what: the same in every process that serves the same APIs.

    Requests that are no API's (nothing is at their path, or their head cannot be read) count as those of one more, without a name.

    Args:
        apis: Their paths, in order.

    Example:
        >>> layout = Layout(["/predict"])
        >>> layout.slot("requests_total", 0, "200") != layout.slot("requests_total", 0, "500")
        True
    """

    def __init__(self, apis: Sequence[str]) -> None:
        self.apis = (*apis, "")
        self._first: dict[str, int] = {}
        self._metrics = {metric.name: metric for metric in METRICS}
        self._places = {metric.name: {value: place for place, value in enumerate(metric.values)} for metric in METRICS}
        slots = 0
        for metric in METRICS:
            self._first[metric.name] = slots
            slots += len(self.apis) * _width(metric)
        self.slots = slots

    def slot(self, name: str, api: int, value: str = "") -> int:
        """Return a number's slot, or the first of a histogram's.

        Args:
            name: The metric's, without the prefix.
            api: The number of the API; one beyond the last for requests that are no API's.
            value: Of the label; one that is not known counts as the last.

        Raises:
            ConfigError: There is no such metric.
        """
        metric = self._metrics.get(name)
        if metric is None:
            raise ConfigError(f"there is no metric {name!r}. There are: {listed(self._metrics)}.")
        place = self._places[name].get(value, len(metric.values) - 1) if metric.values else 0
        return self._first[name] + api * _width(metric) + place

    def histogram(self, name: str, api: int) -> "Histogram":
        """Return where a histogram's numbers lie."""
        return Histogram(self.slot(name, api), self._metrics[name].buckets)

    def samples(self, metric: Metric) -> Iterator[tuple[str, str, int]]:
        """Yield the API, the label's value and the slot of each number of a metric; of a histogram's, those of its first slot."""
        for number, api in enumerate(self.apis if metric.name in _OF_ALL else self.apis[:-1]):
            for value in metric.values or ("",):
                yield api, value, self.slot(metric.name, number, value)


class Histogram(NamedTuple):
    """Where a histogram's numbers lie: a count for each bucket and one beyond them, and their sum.

    Args:
        first: The first slot.
        buckets: The upper bounds.
    """

    first: int
    buckets: tuple[float, ...]


@final
class Page:
    """The numbers of one writer. Make it before forking; only one process may write to it.

    Args:
        layout: What its slots mean.

    Example:
        >>> layout = Layout(["/predict"])
        >>> page = Page(layout)
        >>> page.add(layout.slot("requests_total", 0, "200"))
        >>> page.values[layout.slot("requests_total", 0, "200")]
        1.0
    """

    def __init__(self, layout: Layout) -> None:
        self.values = memoryview(mmap.mmap(-1, max(1, layout.slots) * _SLOT_BYTES)).cast("d")

    def add(self, slot: int, amount: float = 1.0) -> None:
        """Add to a number."""
        self.values[slot] += amount

    def set(self, slot: int, value: float) -> None:
        """Set a gauge."""
        self.values[slot] = value

    def observe(self, histogram: Histogram, value: float) -> None:
        """Count a value."""
        first, buckets = histogram
        self.values[first + bisect_left(buckets, value)] += 1.0
        self.values[first + len(buckets) + 1] += value

    def clear_gauges(self, layout: Layout) -> None:
        """Set all gauges to zero: of a front end that is gone. Who takes over its page counts on, as counters never fall."""
        for metric in METRICS:
            for _, _, slot in layout.samples(metric) if metric.kind == "gauge" else ():
                self.values[slot] = 0.0


@final
class Tally:
    """The pages of a server as its supervisor has them: it reads the sums, and writes into its own page, the last one.

    Args:
        layout: What the slots mean.
        pages: Of the front ends, each its own, then the supervisor's.

    Example:
        >>> layout = Layout(["/predict"])
        >>> front, own = Page(layout), Page(layout)
        >>> front.set(layout.slot("queue_depth", 0), 3)
        >>> Tally(layout, [front, own]).total("queue_depth", 0)
        3.0
    """

    def __init__(self, layout: Layout, pages: Sequence[Page]) -> None:
        self._layout, self._pages = layout, pages

    def total(self, name: str, api: int, value: str = "") -> float:
        """Return a number of all pages together."""
        slot = self._layout.slot(name, api, value)
        return sum(page.values[slot] for page in self._pages)

    def add(self, name: str, api: int, amount: float = 1.0) -> None:
        """Add to a number of the supervisor's own."""
        self._pages[-1].add(self._layout.slot(name, api), amount)

    def set(self, name: str, api: int, value: str, number: float) -> None:
        """Set a gauge of the supervisor's own."""
        self._pages[-1].set(self._layout.slot(name, api, value), number)

    def front_gone(self, number: int) -> None:
        """Take note that a front end has nothing in its hands any more."""
        self._pages[number].clear_gauges(self._layout)


def render(layout: Layout, pages: Iterable[Page]) -> str:
    """Return the sums of all pages in Prometheus' text format.

    Args:
        layout: What the slots mean.
        pages: Those of all writers, living or gone: counters never fall.
    """
    views = [page.values for page in pages]
    totals = [sum(view[slot] for view in views) for slot in range(layout.slots)]
    lines = list[str]()
    for metric in METRICS:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for api, value, slot in layout.samples(metric):
            labels = f'api="{api.translate(_ESCAPES)}"' + (f',{metric.label}="{value.translate(_ESCAPES)}"' if metric.label else "")
            if metric.kind == "histogram":
                lines += _histogram_lines(name, labels, metric.buckets, totals[slot : slot + _width(metric)])
            elif totals[slot] or not metric.label or metric.kind == "gauge":
                lines.append(f"{name}{{{labels}}} {_number(totals[slot])}")
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: str, buckets: Sequence[float], numbers: Sequence[float]) -> Iterator[str]:
    count = 0.0
    for bound, found in zip((*map(_number, buckets), "+Inf"), numbers, strict=False):
        count += found
        yield f'{name}_bucket{{{labels},le="{bound}"}} {_number(count)}'
    yield f"{name}_sum{{{labels}}} {_number(numbers[-1])}"
    yield f"{name}_count{{{labels}}} {_number(count)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _width(metric: Metric) -> int:
    """Return how many slots a metric has for each API: of a histogram, its buckets, the one beyond them, and the sum."""
    return len(metric.buckets) + 2 if metric.kind == "histogram" else max(1, len(metric.values))
