"""Rules of single accelerators that the conformance suite does not hold."""

import subprocess
import sys

import pytest
import torch

from leyden.core.errors import ConfigError, UnavailableError
from leyden.fabric.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator, XPUAccelerator, find_usable_cuda_devices
from leyden.fabric.accelerators import cuda as cuda_module


def test_parallel_devices_are_in_local_rank_order():
    assert CUDAAccelerator.get_parallel_devices([2, 0]) == [torch.device("cuda", 2), torch.device("cuda", 0)]
    assert CPUAccelerator.get_parallel_devices(2) == [torch.device("cpu"), torch.device("cpu")]
    assert MPSAccelerator.get_parallel_devices([0]) == [torch.device("mps", 0)]
    assert XPUAccelerator.get_parallel_devices([1]) == [torch.device("xpu", 1)]


def test_a_count_is_no_list_of_ids():
    with pytest.raises(ConfigError, match="a list of ids"):
        CUDAAccelerator.get_parallel_devices(2)


def test_backends_name_both_device_types():
    assert (CPUAccelerator.backend(), CUDAAccelerator.backend(), XPUAccelerator.backend()) == (
        "gloo",
        "cpu:gloo,cuda:nccl",
        "cpu:gloo,xpu:xccl",
    )


def test_cpu_says_its_cores_and_memory():
    stats = CPUAccelerator().device_stats(torch.device("cpu"))
    assert stats["cores"] >= 1
    assert stats["peak_resident_bytes"] > 2**20


def test_usable_gpus_more_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", classmethod(lambda cls: 2))
    with pytest.raises(ConfigError, match="this machine has 2"):
        find_usable_cuda_devices(3)


def test_occupied_gpus_are_named(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", classmethod(lambda cls: 3))
    monkeypatch.setattr(cuda_module, "_is_usable", lambda index: index == 1)
    assert find_usable_cuda_devices() == [1] == find_usable_cuda_devices(1)
    with pytest.raises(UnavailableError, match=r"only \[1\] can be used: \[0, 2\] are occupied"):
        find_usable_cuda_devices(2)


def test_no_gpu_at_all_is_no_error_where_all_are_asked_for(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", classmethod(lambda cls: 0))
    assert find_usable_cuda_devices() == []


def test_importing_the_cuda_accelerator_lets_gpus_be_counted_without_initialising_cuda():
    code = (
        "import os, importlib, leyden.fabric.accelerators.cuda as cuda; name = 'PYTORCH_NVML_BASED_CUDA_CHECK'; first = os.environ[name];"
        "os.environ[name] = '0'; importlib.reload(cuda); print(first, os.environ[name])"  # the user's own choice is kept
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "0"]


def test_tensor_cores_left_idle_are_mentioned(monkeypatch, caplog):
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    with caplog.at_level("INFO"):
        CUDAAccelerator().setup_device(torch.device("cuda", 1))
    assert current == [torch.device("cuda", 1)]
    assert "set_float32_matmul_precision('high')" in caplog.text


def test_the_peak_of_a_known_chip_is_found(monkeypatch):
    names = iter(["NVIDIA A100-SXM4-80GB", "Voodoo 2"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: next(names))
    assert CUDAAccelerator().peak_flops(torch.device("cuda", 0), torch.bfloat16) == 312e12
    assert CUDAAccelerator().peak_flops(torch.device("cuda", 0), torch.bfloat16) is None


def test_a_cpu_has_no_listed_peak():
    assert CPUAccelerator().peak_flops(torch.device("cpu"), torch.float32) is None
