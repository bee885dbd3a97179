"""Every benchmark is well formed, and what it counts instead of timing is what its claim says; small sizes, no torchrun."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import (
    fabric_load,
    fabric_loader,
    fabric_log,
    fabric_resume,
    fabric_step,
    fits,
    large,
    trainer_loader,
    trainer_memory,
    trainer_resume,
    trainer_save,
    training,
)
from benchmarks.harness import PEERS, Benchmark

FOLDER = Path(fabric_step.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*_*.py") if not path.stem.startswith("_"))


def benchmark(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


@pytest.mark.parametrize("name", NAMES)
def test_comparisons_name_variants_that_exist(name: str) -> None:
    made = benchmark(name)
    sides = {side for comparison in made.comparisons for side in (comparison.of, comparison.to) if side is not None}
    assert sides <= set(made.variants)
    assert {variant.peer for variant in made.variants.values()} <= {None, *PEERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_has_a_limit_that_decides_it_in_five_rounds_at_least(name: str) -> None:
    made = benchmark(name)
    assert any(comparison.limit is not None for comparison in made.comparisons)
    assert made.rounds >= 5
    assert made.claim[-1] not in ".!"


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_under_its_own_name(name: str) -> None:
    assert f'main(BENCHMARK, "benchmarks.{name}")' in (FOLDER / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_modules_import_in_environments_without_leyden(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name for node in imports for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])}
    assert {str(name).partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "benchmarks"}


def test_calls_are_those_of_a_step_without_what_surrounds_the_loop() -> None:
    def step() -> int:
        return len("")

    def steps(count: int) -> None:
        dict.fromkeys(range(100))
        for _ in range(count):
            step()

    assert training.calls_of(steps) == 2


def test_batches_repeat_after_a_hundred() -> None:
    some = training.batches(250)
    assert len(some) == 250
    assert some[0] is some[200]
    assert some[0] is not some[1]


def test_training_logs_each_loss_and_learns() -> None:
    model, optimizer = training.network()
    losses: list[float] = []
    training.train_and_log(
        model, optimizer, training.batches(1) * 30, lambda loss: loss.backward(), lambda loss: losses.append(loss.item())
    )
    assert len(losses) == 30
    assert losses[-1] < losses[0]


def test_a_step_of_the_benchmark_makes_at_most_21_calls_more_than_the_raw_loop() -> None:
    assert fabric_step.raw(steps=10)["extra_calls"] == 0
    assert 0 < fabric_step.leyden(steps=10)["extra_calls"] <= 21


@pytest.mark.parametrize(
    "measure",
    [
        fabric_loader.raw,
        fabric_loader.leyden,
        fabric_log.raw,
        fabric_log.by_hand,
        fabric_log.leyden,
        trainer_loader.raw,
        trainer_loader.leyden,
    ],
    ids=lambda measure: f"{measure.__module__.rpartition('.')[2]}-{measure.__name__}",
)
def test_contestants_run_and_take_time(measure: Callable[..., dict[str, float]]) -> None:
    assert measure(steps=5)["seconds"] > 0


def test_resuming_reads_one_batch_where_skipping_reads_them_all() -> None:
    assert fabric_resume.leyden(batches=10, at=8, seconds=0)["reads"] == 2
    assert fabric_resume.by_reading(batches=10, at=8, seconds=0)["reads"] == 18


def test_a_resumed_batch_that_is_not_the_next_one_is_an_error() -> None:
    import torch

    items = fabric_resume.Items(4, 0)
    with pytest.raises(RuntimeError, match=r"resumed at the batch \[1, 2\], but \[2, 3\] comes next"):
        fabric_resume.first_batch([2, 3], items, lambda: torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (fabric_load.write_safetensors, fabric_load.load_safetensors),
        (fabric_load.write_file, fabric_load.load_with_leyden),
        (fabric_load.write_directory, fabric_load.load_with_leyden),
    ],
    ids=["safetensors", "file", "directory"],
)
def test_what_is_loaded_is_what_was_written(write: Callable[..., None], load: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    write(str(tmp_path), 16)
    assert load(str(tmp_path), 16)["seconds"] > 0


def test_a_load_that_changes_nothing_is_an_error() -> None:
    model = fabric_load.blank(16)
    with pytest.raises(RuntimeError, match="are not those of the file"):
        fabric_load.cost(0, 1, lambda: None, lambda: fabric_load.is_filled(model, 16))


def test_the_large_model_has_the_bytes_it_says() -> None:
    held = [parameter.numel() * parameter.element_size() for parameter in large.stack(16).parameters()]
    assert sum(held) == large.bytes_of_stack(16)
    assert len(held) == large.LAYERS
    assert 0 < large.resident_bytes() <= large.peak_bytes() * 1.1


def test_the_fastest_epoch_is_neither_the_first_nor_the_last() -> None:
    assert fits.fastest([0.0, 0.5, 3.5, 5.5, 9.5]) == 2.0
    with pytest.raises(RuntimeError, match="three at least"):
        fits.fastest([0.0, 1.0])


def test_ten_callbacks_are_ten_of_their_own_class() -> None:
    made = fits.ten_empty_callbacks(object)
    assert len({type(callback) for callback in made}) == 10


def test_memory_is_looked_at_twice() -> None:
    assert trainer_memory.leyden(steps=12, warm=3)["resident"] > 0


@pytest.mark.parametrize("is_asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_a_trainers_saves_are_complete_files(is_asynchronous: bool) -> None:
    result = trainer_save.leyden(is_asynchronous=is_asynchronous, width=16)
    assert result["bytes"] > large.bytes_of_stack(16, trainer_save.LAYERS)


@pytest.mark.parametrize("kind", trainer_resume.LOADERS[::2])
def test_a_run_resumed_from_each_moment_is_exact(kind: str) -> None:
    assert trainer_resume.leyden((kind,)) == {"inexact": 0, "exact": len(trainer_resume.MOMENTS)}
