"""What all profilers share: actions nest, reports go to a file or to standard output; and each keeps these promises."""

import pickle
from collections import Counter
from pathlib import Path

import pytest

from leyden.fabric.rank_zero import rank_zero_only
from leyden.trainer.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler

EVERY = pytest.mark.parametrize("profiler_class", [PassThroughProfiler, SimpleProfiler, AdvancedProfiler, PyTorchProfiler])


class Counting(Profiler):
    """A profiler of one's own."""

    def __init__(self, dirpath: Path | None = None, filename: str | None = None) -> None:
        super().__init__(dirpath, filename)
        self.counts: Counter[str] = Counter()

    def start(self, action_name: str) -> None:
        self.counts[f"+{action_name}"] += 1

    def stop(self, action_name: str) -> None:
        self.counts[f"-{action_name}"] += 1

    def summary(self) -> str:
        return str(sorted(self.counts.items()))


def test_a_block_is_stopped_when_it_fails() -> None:
    profiler = Counting()
    with pytest.raises(KeyError), profiler.profile("load") as name:
        raise KeyError(name)
    assert profiler.counts == {"+load": 1, "-load": 1}


def test_a_wrapped_function_keeps_its_name_and_result() -> None:
    profiler = Counting()

    def double(number: int) -> int:
        return 2 * number

    wrapped = profiler.wrap("double", double)
    assert wrapped(4) == 8
    assert wrapped.__name__ == "double"
    assert profiler.counts == {"+double": 1, "-double": 1}


@EVERY
def test_actions_nest_and_repeat(profiler_class: type[Profiler], tmp_path: Path) -> None:
    profiler = profiler_class(tmp_path)
    profiler.setup("fit", None, tmp_path)
    for _ in range(3):
        with profiler.profile("outer"), profiler.profile("run_training_batch"):
            pass
    assert isinstance(profiler.summary(), str)
    profiler.teardown("fit")


@EVERY
def test_a_profiler_is_pickled_before_a_run(profiler_class: type[Profiler]) -> None:
    assert pickle.loads(pickle.dumps(profiler_class(filename="report"))).filename == "report"


def test_the_report_goes_to_standard_output_on_rank_zero(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = Counting()
    with profiler.profile("a"):
        pass
    profiler.describe()
    assert capsys.readouterr().out == "[('+a', 1), ('-a', 1)]\n"
    monkeypatch.setattr(rank_zero_only, "_rank", 1)
    profiler.describe()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("rank", "name"), [(None, "fit-report.txt"), (1, "fit-report-1.txt")])
def test_the_report_goes_to_a_file_for_each_rank(tmp_path: Path, rank: int | None, name: str) -> None:
    profiler = Counting(tmp_path / "deep", "report")
    profiler.setup("fit", rank, "elsewhere")
    profiler.describe()
    profiler.describe()
    assert (tmp_path / "deep" / name).read_text() == "[]\n[]\n"
    assert profiler.local_rank == (rank or 0)


def test_the_log_directory_is_the_default_place(tmp_path: Path) -> None:
    profiler = Counting(filename="report")
    profiler.setup("test", None, tmp_path)
    profiler.describe()
    assert (tmp_path / "test-report.txt").exists()


def test_passing_through_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    PassThroughProfiler().describe()
    assert capsys.readouterr().out == ""
