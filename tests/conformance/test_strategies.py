"""What fabric's own strategies promise beyond the kit (`test_strategy_kits`), on real gloo ranks: variants, collectives, exchange."""

import functools
import tempfile

import pytest
import torch

from leyden.core.optional import installed
from leyden.fabric.checkpoint.convert import convert
from leyden.fabric.testing import exercises
from tests.conformance import strategy_suite as suite
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def each(words):
    return pytest.mark.parametrize("word", words)


@functools.cache
def results(word):
    return run_ranks(suite.beyond_the_kit, suite.STRATEGIES[word][1], args=(word,), timeout=240)


@functools.cache
def variants():
    return run_ranks(suite.losses_of_variants, 2, timeout=240)


def relative(ours, expected):
    return max(abs(a - b) / abs(b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("word", suite.VARIANTS)
def test_losses_of_a_variant_are_those_of_one_process(word):
    for rank in variants():
        assert relative(rank[word], exercises.plain_losses()) <= 1e-5


@each(["ddp"])
def test_losses_in_float64_are_those_of_one_process_to_twelve_digits(word):
    one = run_ranks(suite.losses_of, 1, args=("single", "64-true"))[0]
    two = run_ranks(suite.losses_of, 2, args=(word, "64-true"))[0]
    assert relative(two, one) <= 1e-12


@functools.cache
def empty_on_one_rank():
    return run_ranks(suite.empty, 1, args=("fsdp",))[0]


@each(["fsdp", "hsdp"])
def test_initial_weights_from_meta_do_not_depend_on_the_number_of_ranks(word):
    expected = empty_on_one_rank()
    for rank in results(word):
        assert list(rank["empty"]) == list(expected)
        assert all(torch.equal(rank["empty"][name], value) for name, value in expected.items())


@each(["ddp", "fsdp"])
def test_a_step_costs_no_collective_beyond_torchs_own(word):
    for ours, raw in (rank["collectives"] for rank in results(word)):
        assert raw > 0
        assert ours == raw


def test_what_is_freed_after_forward_is_what_costs_another_gather():
    for rank in run_ranks(suite.collectives_of_variants, 2, timeout=240):
        ours, raw = rank["fsdp_freed"]  # the root too: one gather more in each of five steps
        assert ours == raw + 5
        ours, raw = rank["fsdp_zero2"]  # nothing: two blocks less
        assert ours == raw - 10


BY_RANKS = {1: ["single"], 2: ["ddp", "fsdp", "tp"], 4: ["hsdp", "tp_fsdp"]}
SOURCES = [word for words in BY_RANKS.values() for word in words]
ENGINES = list(suite.ENGINES)
needs_deepspeed = pytest.mark.skipif(
    not installed("deepspeed"), reason="deepspeed is not installed: docs/howto/deepspeed.md has the command"
)


@functools.cache  # a fixture of this module would be made again whenever a worker comes back to it
def exchanged():
    """Every strategy saves in the middle; every strategy loads every one of these and goes on.

    Engines load what they saved themselves, and of others the weights; others load an engine's weights, converted.
    """
    saved, loaded, weights = {}, {}, {}
    has_engines = installed("deepspeed")
    with tempfile.TemporaryDirectory(prefix="leyden-exchange-") as folder:
        for ranks, words in BY_RANKS.items():
            saved |= run_ranks(suite.save_all, ranks, args=(folder, words), timeout=240)[0]
        for ranks, words in BY_RANKS.items():
            loaded |= run_ranks(suite.load_all, ranks, args=(folder, words, SOURCES), timeout=240)[0]
        if has_engines:
            saved |= run_ranks(suite.save_all, 2, args=(folder, ENGINES), timeout=240)[0]
            own, weights = run_ranks(suite.load_with_engines, 2, args=(folder, ENGINES, SOURCES), timeout=240)[0]
            loaded |= own
            for engine in ENGINES:
                convert(f"{folder}/{engine}", f"{folder}/{engine}.ckpt")
            files = [f"{engine}.ckpt" for engine in ENGINES]
            for ranks, words in BY_RANKS.items():
                weights |= run_ranks(suite.load_all_weights, ranks, args=(folder, words, files), timeout=240)[0]
    return saved, loaded, weights


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
def test_what_one_strategy_saves_every_other_loads_and_goes_on_with(source, target):
    saved, loaded, _ = exchanged()
    after = loaded[f"{source} in {target}"]
    assert len(after) == suite.STEPS // 2
    assert relative(after, saved[source]) <= 1e-5
    if source == target:
        assert after == saved[source]


@needs_deepspeed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_trades_weights_with_every_other_strategy(engine):
    saved, loaded, weights = exchanged()
    assert loaded[f"{engine} in {engine}"] == saved[engine]
    assert relative(saved[engine], saved["single"]) <= 1e-4
    for word in SOURCES:
        assert weights[f"{word} in {engine}"] == pytest.approx(saved[word][0], rel=1e-5)
        assert weights[f"{engine}.ckpt in {word}"] == pytest.approx(saved[engine][0], rel=1e-5)
