"""Every strategy, on real gloo ranks, against one process: the same losses, norms, names, methods."""

import functools
import tempfile

import pytest
import torch

from tests.conformance import strategy_suite as suite
from tests.support.ranks import run_ranks

WORDS = list(suite.STRATEGIES)
PARALLEL = [word for word in WORDS if word != "single"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def each(words):
    return pytest.mark.parametrize("word", words)


@functools.cache
def results(word):
    return run_ranks(suite.everything, suite.STRATEGIES[word][1], args=(word,), timeout=240)


@functools.cache
def variants():
    return run_ranks(suite.losses_of_variants, 2, timeout=240)


def relative(ours, expected):
    return max(abs(a - b) / abs(b) for a, b in zip(ours, expected, strict=True))


@each(PARALLEL)
def test_losses_are_those_of_one_process(word):
    for rank in results(word):
        assert len(rank["losses"]) == suite.STEPS
        assert relative(rank["losses"], results("single")[0]["losses"]) <= 1e-5


@pytest.mark.parametrize("word", suite.VARIANTS)
def test_losses_of_a_variant_are_those_of_one_process(word):
    for rank in variants():
        assert relative(rank[word], results("single")[0]["losses"]) <= 1e-5


@each(["ddp"])
def test_losses_in_float64_are_those_of_one_process_to_twelve_digits(word):
    one = run_ranks(suite.losses_of, 1, args=("single", "64-true"))[0]
    two = run_ranks(suite.losses_of, 2, args=(word, "64-true"))[0]
    assert relative(two, one) <= 1e-12


@each(PARALLEL)
def test_accumulating_is_one_big_batch(word):
    for rank in results(word):
        difference, size = rank["accumulation"]
        assert difference <= 1e-5 * max(1.0, size)


@each(PARALLEL)
def test_the_clipped_norm_is_torchs_over_everything(word):
    for rank in results(word):
        reported, before, after = rank["norm"]
        assert reported == pytest.approx(before, rel=1e-5)
        assert reported > 1
        assert after == pytest.approx(1.0, rel=1e-4)
        assert rank["value"] <= 0.01 + 1e-9


@each(WORDS)
def test_names_are_those_of_the_plain_module(word):
    for plain, ours in (rank["names"] for rank in results(word)):
        assert ours == plain


@each(PARALLEL)
def test_undeclared_methods_are_refused_and_marked_ones_run(word):
    expected = results("single")[0]["methods"][1]
    for said, value, width in (rank["methods"] for rank in results(word)):
        assert 'model.mark_forward_method("score")' in said
        assert value == pytest.approx(expected, rel=1e-5)
        assert width == suite.WIDTH


@each(PARALLEL)
def test_after_an_exception_in_any_context_the_next_steps_are_right(word):
    for rank in results(word):
        assert relative(rank["contexts"], results("single")[0]["losses"]) <= 1e-5


@each(PARALLEL)
def test_two_models_train_side_by_side(word):
    for rank in results(word):
        assert rank["two_models"] == pytest.approx(results("single")[0]["two_models"], rel=1e-4)


@each([word for word in PARALLEL if not word.startswith("tp")])
def test_tied_weights_stay_tied(word):
    for rank in results(word):
        assert relative(rank["tied"], results("single")[0]["tied"]) <= 1e-5


@each(["fsdp", "hsdp"])
def test_initial_weights_from_meta_do_not_depend_on_the_number_of_ranks(word):
    expected = results("fsdp")[0]["empty"]
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


BY_RANKS = {1: ["single"], 2: ["ddp", "fsdp", "tp"], 4: ["tp_fsdp"]}
SOURCES = [word for words in BY_RANKS.values() for word in words]


@functools.cache  # a fixture of this module would be made again whenever a worker comes back to it
def exchanged():
    """Every strategy saves in the middle; every strategy loads every one of these and goes on."""
    saved, loaded = {}, {}
    with tempfile.TemporaryDirectory(prefix="leyden-exchange-") as folder:
        for ranks, words in BY_RANKS.items():
            saved |= run_ranks(suite.save_all, ranks, args=(folder, words), timeout=240)[0]
        for ranks, words in BY_RANKS.items():
            loaded |= run_ranks(suite.load_all, ranks, args=(folder, words, SOURCES), timeout=240)[0]
    return saved, loaded


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
def test_what_one_strategy_saves_every_other_loads_and_goes_on_with(source, target):
    saved, loaded = exchanged()
    after = loaded[f"{source} in {target}"]
    assert len(after) == suite.STEPS // 2
    assert relative(after, saved[source]) <= 1e-5
    if source == target:
        assert after == saved[source]


@each(["ddp", "fsdp", "tp"])
def test_nothing_is_left_after_teardown(word):
    for initialized, threads in run_ranks(suite.teardown, 2, args=(word,), join=False):
        assert not initialized
        assert threads <= 0
