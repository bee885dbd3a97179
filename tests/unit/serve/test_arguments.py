"""What users give to a server: every accepted form, and the words of every refusal."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.serve import arguments
from leyden.serve.devices import Present, choose_accelerator, device_list, present_devices


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, 100 * 2**20), (-1, None), (0, 0), (17, 17), ("10MB", 10 * 2**20), ("1GB", 2**30), ("1.5 kb", 1536), ("64MiB", 2**26), ("9", 9)],
)
def test_sizes(given: Any, found: int | None) -> None:
    assert arguments.payload_bytes(given) == found


@pytest.mark.parametrize("given", [True, -2, "ten", "10 MB/s", 1.5, []])
def test_what_is_no_size_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="max_payload_size="):
        arguments.payload_bytes(given)


def test_paths() -> None:
    assert arguments.checked_path("info_path", "/x") == "/x"
    with pytest.raises(ConfigError, match=r"^info_path must start with '/', and is 'x'. Pass info_path='/x'."):
        arguments.checked_path("info_path", "x")
    own = {"/health": "healthcheck_path"}
    arguments.checked_paths(["/a", "/b"], own)
    with pytest.raises(ConfigError, match="api_path '/a' is already in use by API 0"):
        arguments.checked_paths(["/a", "/a"], own)
    with pytest.raises(ConfigError, match="api_path '/health' is already in use by healthcheck_path"):
        arguments.checked_paths(["/health"], own)


@pytest.mark.parametrize("port", [0, 1024, 65535, "8000"])
def test_ports(port: Any) -> None:
    assert arguments.checked_port(port) == int(port)


@pytest.mark.parametrize("port", [80, 65536, True, "http", None])
def test_what_is_no_port_is_refused(port: Any) -> None:
    with pytest.raises(ConfigError, match=r"^port must be a value from 1024 to 65535 but got"):
        arguments.checked_port(port)


def test_hosts_and_front_ends() -> None:
    assert [arguments.checked_host(host) for host in ("0.0.0.0", "127.0.0.1", "::", "unix:/tmp/s")][-1] == "unix:/tmp/s"
    for host in ("localhost", "unix:/", "", None):
        with pytest.raises(ConfigError, match=r"^host must be '0\.0\.0\.0', '127\.0\.0\.1', or '::' but got"):
            arguments.checked_host(host)
    assert [arguments.checked_front_ends(None, workers) for workers in (1, 4, 5, 9)] == [1, 1, 2, 3]
    for count in (0, -1, True, "2"):
        with pytest.raises(ConfigError, match="num_api_servers must be greater than 0"):
            arguments.checked_front_ends(count, 1)


def test_seconds() -> None:
    assert arguments.seconds_or_never(2.5) == 2.5
    assert all(arguments.seconds_or_never(value) == math.inf for value in (False, -1, None, 1e9, 1e300))
    for value in (0, -3, "30", True, math.nan, math.inf):
        with pytest.raises(ConfigError, match="timeout="):
            arguments.seconds_or_never(value)


def test_workers() -> None:
    assert arguments.workers_for(2, ["/a", "/b"]) == [2, 2]
    assert arguments.workers_for([1, 3], ["/a", "/b"]) == [1, 3]
    assert arguments.workers_for({"/b": 4}, ["/a", "/b"]) == [1, 4]
    for given, told in ((0, "≥ 1"), ([1], "1 numbers for 2"), ({"/c": 1}, "which no API has"), ("2", "≥ 1"), (True, "≥ 1")):
        with pytest.raises(ConfigError, match=told):
            arguments.workers_for(given, ["/a", "/b"])


def test_metadata() -> None:
    assert arguments.checked_metadata({"name": "x", "sizes": [1, 2]}) == {"name": "x", "sizes": [1, 2]}
    with pytest.raises(ConfigError, match=r"^model_metadata must be JSON serializable\."):
        arguments.checked_metadata({"model": object()})


# -- devices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "found"), [(None, "cuda"), ("AUTO", "cuda"), ("gpu", "cuda"), ("cuda", "cuda"), ("CPU", "cpu")])
def test_accelerators(given: Any, found: str) -> None:
    assert choose_accelerator(given, Present(cuda=1)) == found


def test_accelerators_that_are_not_there_are_refused() -> None:
    assert choose_accelerator("auto", Present()) == "cpu"
    assert choose_accelerator("gpu", Present(mps=True)) == "mps"
    for name in ("cuda", "gpu", "mps"):
        with pytest.raises(ConfigError, match="no such device"):
            choose_accelerator(name, Present())
    with pytest.raises(ConfigError, match="Did you mean 'cuda'"):
        choose_accelerator("cudda", Present())


@pytest.mark.parametrize(
    ("accelerator", "given", "found"),
    [
        ("cpu", "auto", ["cpu"]),
        ("cpu", 1, ["cpu"]),
        ("mps", "auto", [["mps:0"]]),
        ("cuda", "auto", [["cuda:0"], ["cuda:1"], ["cuda:2"]]),
        ("cuda", 2, [["cuda:0"], ["cuda:1"]]),
        ("cuda", [2, 0], [["cuda:2"], ["cuda:0"]]),
        ("cuda", [[0, 1], [2]], [["cuda:0", "cuda:1"], ["cuda:2"]]),
    ],
)
def test_devices(accelerator: str, given: Any, found: Any) -> None:
    assert device_list(accelerator, given, Present(cuda=3)) == found


@pytest.mark.parametrize(
    ("accelerator", "given", "told"),
    [
        ("cuda", 4, "no cuda:3; this machine has 3"),
        ("cuda", [0, 0], "names a device twice"),
        ("cuda", 0, "≥ 1"),
        ("cuda", [], "≥ 1"),
        ("cuda", ["a"], "'a' is no id"),
        ("cuda", [[]], "without a device"),
        ("cuda", -1, "≥ 1"),
        ("mps", 2, "no mps:1"),
        ("cpu", 4, "workers_per_device=4"),
    ],
)
def test_devices_that_cannot_be_are_refused(accelerator: str, given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        device_list(accelerator, given, Present(cuda=3))


def test_gpus_are_counted_as_cuda_would(tmp_path: Path) -> None:
    for name in ("0000:01", "0000:02", "0000:03"):
        (tmp_path / name).mkdir()
    for visible, count in ((None, 3), ("", 0), ("0,2", 2), ("1,7,0", 1), ("-1", 0), ("GPU-a,GPU-b", 2)):
        environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        assert present_devices(environ, tmp_path, tmp_path / "absent").cuda == count, visible
    assert present_devices({}, tmp_path / "absent", tmp_path / "absent").cuda == 0


@pytest.mark.parametrize(("listed", "there", "count"), [(8, ["nvidia3"], 1), (0, ["nvidia0", "nvidia1"], 2), (2, [], 2), (0, [], 0)])
def test_gpus_of_a_container_are_those_it_has_files_of(tmp_path: Path, listed: int, there: list[str], count: int) -> None:
    driver, nodes = tmp_path / "gpus", tmp_path / "dev"
    for folder in (driver, nodes):
        folder.mkdir()
    for number in range(listed):
        (driver / f"0000:0{number}").mkdir()
    for name in [*there, "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia0x"]:
        (nodes / name).touch()
    assert present_devices({}, driver, nodes).cuda == count


def test_these_modules_load_nothing_heavy() -> None:
    code = (
        "import sys, leyden.serve.router, leyden.serve.metrics, leyden.serve.arguments\n"
        "from leyden.serve.devices import present_devices\npresent_devices({})\n"
        "print(sorted({'torch', 'numpy', 'fastapi', 'uvicorn', 'pydantic', 'msgspec'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
