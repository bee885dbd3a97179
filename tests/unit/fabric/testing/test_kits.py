"""The kits find what is broken, and say it; importing them imports no pytest."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.fabric.accelerators import CPUAccelerator
from leyden.fabric.environments import TorchElasticEnvironment
from leyden.fabric.plugins import CheckpointIO, Precision
from leyden.fabric.testing import (
    AcceleratorConformance,
    CheckpointIOConformance,
    EnvironmentConformance,
    FailingCheckpointIO,
    FullDiskCheckpointIO,
    MemoryCheckpointIO,
    PrecisionConformance,
    StrategyConformance,
    run_in_ranks,
)
from leyden.fabric.testing.expectations import expect_close, refused
from tests.support import launchers


class Sharing(CheckpointIO):
    """Keeps the caller's own tensors, and forgets to raise."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        self.stored[path] = checkpoint

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.stored.get(path, {})

    def remove_checkpoint(self, path: str) -> None:
        del self.stored[path]


class SharingKit(CheckpointIOConformance):
    def make(self, root: Path) -> CheckpointIO:
        return Sharing()


def test_a_store_that_keeps_the_callers_tensors_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"checkpoint\['model'\]\['weight'\] should be"):
        SharingKit().test_what_changes_after_the_save_stays_outside(tmp_path)


def test_a_store_that_invents_checkpoints_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="loading what was never saved should be refused with LookupError or OSError"):
        SharingKit().test_what_is_not_there_cannot_be_loaded(tmp_path)


class Losing(CheckpointIO):
    """Deletes the old checkpoint before it fails to write the new one."""

    def __init__(self) -> None:
        self.inner, self.refuses = MemoryCheckpointIO(), False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        self.inner.remove_checkpoint(path)
        if self.refuses:
            raise OSError("no")
        self.inner.save_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.inner.load_checkpoint(path)

    def remove_checkpoint(self, path: str) -> None:
        self.inner.remove_checkpoint(path)


class LosingKit(CheckpointIOConformance):
    def make(self, root: Path) -> CheckpointIO:
        return Losing()

    def refusing(self, plugin: Any, root: Path) -> Any:
        plugin.refuses = True
        return contextlib.nullcontext()


def test_a_store_that_loses_the_one_before_is_found(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="there is no checkpoint"):
        LosingKit().test_a_refused_save_is_an_error_and_keeps_the_one_before(tmp_path)


class LoudAccelerator(CPUAccelerator):
    name = "CPU"


class LoudKit(AcceleratorConformance):
    def make(self) -> LoudAccelerator:
        return LoudAccelerator()


def test_an_accelerator_of_another_name_is_found() -> None:
    with pytest.raises(AssertionError, match="should be a word in lower case, but is 'CPU'"):
        LoudKit().test_name_is_a_lower_case_word()


class SwappedKit(EnvironmentConformance):
    def make(self, rank: int) -> TorchElasticEnvironment:
        return TorchElasticEnvironment(environ=launchers.torchrun(3 - rank))


def test_an_environment_that_numbers_ranks_backwards_is_found() -> None:
    with pytest.raises(AssertionError, match=r"the global ranks: expected \[0, 1, 2, 3\], found \[3, 2, 1, 0\]"):
        SwappedKit().test_ranks_are_numbered_from_zero()


class Leaky(Precision):
    def forward_context(self) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().forward_context()


class LeakyKit(PrecisionConformance):
    def make(self) -> Precision:
        return Leaky()


def test_a_precision_that_leaves_the_default_dtype_is_found() -> None:
    try:
        with pytest.raises(AssertionError, match=r"the default dtype after an exception in forward_context\(\)"):
            LeakyKit().test_the_default_dtype_comes_back_after_exceptions()
    finally:
        torch.set_default_dtype(torch.float32)


class InRanks(StrategyConformance):
    """Not a strategy's: tries out how ranks are started."""

    def make(self) -> str:
        return "ddp"

    def losses(self) -> list[float]:
        return self.launch().all_gather(torch.tensor(float(self.launch().global_rank))).tolist()

    def fail(self) -> None:
        raise ValueError("from a rank")


@pytest.mark.slow
def test_a_method_runs_in_real_ranks() -> None:
    assert run_in_ranks(InRanks, "losses", 2) == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.slow
def test_what_a_rank_raises_is_shown() -> None:
    with pytest.raises(AssertionError, match=r"(?s)0 of 1 ranks returned.*rank 0, exit code 1.*ValueError: from a rank"):
        run_in_ranks(InRanks, "fail", 1)


def test_faulty_stores_are_well_again_when_told(tmp_path: Path) -> None:
    down, full = FailingCheckpointIO(), FullDiskCheckpointIO()
    for store, error in ((down, ConnectionError), (full, OSError)):
        with pytest.raises(error):
            store.save_checkpoint({"step": 1}, "there")
    down.is_down = full.is_full = False
    for store in (down, full):
        store.save_checkpoint({"step": 1}, "there")
        assert store.load_checkpoint("there") == {"step": 1}
        store.remove_checkpoint("there")
        store.teardown()
        with pytest.raises(LookupError):
            store.load_checkpoint("there")


def test_an_expected_refusal_names_what_is_missing() -> None:
    with pytest.raises(AssertionError, match="should say 'nine', but says: eight"), refused("it", ConfigError, words="nine"):
        raise ConfigError("eight")
    with pytest.raises(KeyError), refused("it", ConfigError):
        raise KeyError("another error passes")


def test_values_that_differ_are_named() -> None:
    expect_close([1.0 + 1e-7, 1e-7], [1.0, 0.0], "them", relative=1e-6)
    with pytest.raises(AssertionError, match=r"them: value 1 should be 2\.0"):
        expect_close([1.0, 3.0], [1.0, 2.0], "them", relative=1e-6)


def test_importing_the_kits_imports_no_pytest() -> None:
    program = "import sys, leyden.fabric.testing as t; [getattr(t, name) for name in t.__all__]; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
