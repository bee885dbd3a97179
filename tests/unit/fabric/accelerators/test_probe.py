"""Which accelerator a name means, for machines we do not have."""

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, UnavailableError
from leyden.fabric.accelerators import ACCELERATOR_REGISTRY, CPUAccelerator, CUDAAccelerator, IndexedAccelerator
from leyden.fabric.accelerators.probe import Probe, accelerator_for, probe_machine


def machine(current=None, **counts):
    return Probe(device_counts={"cpu": 1, "cuda": 0, "mps": 0, "xpu": 0, **counts}, current=current)


class Vendor(IndexedAccelerator):
    device_type = "mtia"
    collective_backend = "hccl"


@pytest.fixture
def vendor():
    ACCELERATOR_REGISTRY.register("mtia", Vendor)
    yield
    ACCELERATOR_REGISTRY.remove("mtia")


@pytest.mark.parametrize("auto", ["auto", "AUTO", None])
@pytest.mark.parametrize(
    ("probe", "found"),
    [
        (machine(), "cpu"),
        (machine(cuda=2), "cuda"),
        (machine(mps=1), "mps"),
        (machine(mps=1, cuda=1), "mps"),
        (machine(xpu=1, current="xpu"), "xpu"),
        (machine(xpu=1), "xpu"),
        (machine(current="unregistered"), "cpu"),
    ],
)
def test_auto_finds_the_best_there_is(auto, probe, found):
    assert accelerator_for(auto, probe).name == found


def test_auto_finds_a_registered_accelerator_that_is_there(vendor):
    assert accelerator_for("auto", machine(mtia=2)).name == "mtia"
    assert accelerator_for("auto", machine()).name == "cpu"


@pytest.mark.parametrize(("probe", "found"), [(machine(cuda=1), "cuda"), (machine(mps=1), "mps"), (machine(xpu=4), "xpu")])
@pytest.mark.parametrize("name", ["gpu", "GPU"])
def test_gpu_is_the_one_that_is_there(name, probe, found):
    assert accelerator_for(name, probe).name == found


def test_gpu_without_any_names_the_way_out():
    with pytest.raises(UnavailableError, match=r'accelerator="gpu", but torch .* sees no CUDA.*Use accelerator="cpu"'):
        accelerator_for("gpu", machine())


@pytest.mark.parametrize("name", ["cuda", "CUDA", "mps", "xpu"])
def test_known_but_absent_is_unavailable_and_lists_what_is_there(name):
    with pytest.raises(UnavailableError, match="Available are 'cpu'"):
        accelerator_for(name, machine())


def test_unknown_name_gets_the_closest_and_all():
    with pytest.raises(ConfigError, match=r"accelerator='cdua' is not known. Did you mean 'cuda'\? Accepted are 'auto', 'gpu', 'cpu'"):
        accelerator_for("cdua", machine())


@pytest.mark.parametrize("wrong", [3, ["cpu"], CPUAccelerator])
def test_other_types_are_refused(wrong):
    with pytest.raises(ConfigTypeError, match="or an Accelerator"):
        accelerator_for(wrong, machine())


def test_an_object_is_taken_as_it_is():
    mine = CPUAccelerator()
    assert accelerator_for(mine, machine()) is mine
    with pytest.raises(UnavailableError):
        accelerator_for(CUDAAccelerator(), machine())


def test_this_machine_has_a_cpu_and_counts_agree_with_torch():
    import torch

    probe = probe_machine()
    assert probe.count("cpu") == 1
    assert probe.count("cuda") == torch.cuda.device_count()
    assert probe.interactive is False
