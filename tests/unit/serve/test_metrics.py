"""Counter pages: every number comes out as it went in, added up over processes, in a text that Prometheus' own parser reads."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.serve.metrics import METRICS, PREFIX, SECONDS, Layout, Page, render

parser = pytest.importorskip("prometheus_client.parser")
APIS = ["/predict", '/odd"path\\']


def families(layout: Layout, *pages: Page) -> dict[str, Any]:
    return {family.name: family for family in parser.text_string_to_metric_families(render(layout, pages))}


def value(found: dict[str, Any], name: str, **labels: str) -> float:
    family = found[f"{PREFIX}{name}".removesuffix("_total").removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")]
    return sum(sample.value for sample in family.samples if sample.name == PREFIX + name and labels.items() <= sample.labels.items())


def test_every_metric_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs/howto/serve-log-and-measure.md").read_text()
    for metric in METRICS:
        label = f"{{{metric.label}}}" if metric.label else ""
        assert f"| `{PREFIX}{metric.name}{label}` | {metric.kind} |" in page, metric.name


def test_every_metric_is_there_for_every_api() -> None:
    layout = Layout(APIS)
    found = families(layout, Page(layout))
    assert len(found) == len(METRICS)
    assert {sample.labels["api"] for sample in found[f"{PREFIX}queue_depth"].samples} == set(APIS)


def test_pages_are_added_up_and_slots_do_not_overlap() -> None:
    layout = Layout(APIS)
    pages = [Page(layout), Page(layout)]
    for page in pages:
        page.add(layout.slot("requests_total", 1, "429"), 2)
        page.set(layout.slot("queue_depth", 0), 7)
    pages[0].add(layout.slot("requests_total", 1, "599"))
    found = families(layout, *pages)
    assert value(found, "requests_total", api=APIS[1], status="429") == 4
    assert value(found, "requests_total", api=APIS[1], status="other") == 1
    assert value(found, "requests_total", api=APIS[0]) == 0
    assert value(found, "queue_depth", api=APIS[0]) == 14
    slots = [slot for metric in METRICS for *_, slot in layout.samples(metric)]
    assert len(set(slots)) == len(slots)
    assert max(slots) < layout.slots


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_what_it_is_given(seconds: list[float]) -> None:
    layout = Layout(["/predict"])
    page, place = Page(layout), layout.histogram("queue_seconds", 0)
    for each in seconds:
        page.observe(place, each)
    found = families(layout, page)
    assert value(found, "queue_seconds_count") == len(seconds)
    assert value(found, "queue_seconds_sum") == pytest.approx(sum(seconds))
    for bound in SECONDS:
        text = str(int(bound)) if bound == int(bound) else repr(bound)
        same = {sample.labels["le"]: sample.value for sample in found[f"{PREFIX}queue_seconds"].samples if "le" in sample.labels}
        assert {float(key): count for key, count in same.items()}[float(text)] == sum(each <= bound for each in seconds)
        assert same["+Inf"] == len(seconds)


def test_what_a_forked_process_counts_is_seen_and_outlives_it() -> None:
    layout = Layout(["/predict"])
    page = Page(layout)
    child = os.fork()
    if not child:
        for _ in range(1000):
            page.add(layout.slot("stream_chunks_total", 0))
        page.set(layout.slot("inflight", 0), 7)
        os._exit(0)
    os.waitpid(child, 0)
    assert value(families(layout, page), "stream_chunks_total") == 1000
    assert value(families(layout, page), "inflight") == 7
    page.clear_gauges(layout)
    assert value(families(layout, page), "inflight") == 0
    assert value(families(layout, page), "stream_chunks_total") == 1000, "what has happened has happened"


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no metric 'requests'"):
        Layout(["/predict"]).slot("requests", 0)
