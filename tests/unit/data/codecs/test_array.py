"""Array files and raw bytes."""

from typing import Any

import numpy as np
import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.data.codecs import array as arrays
from leyden.data.types import Tensor


@pytest.mark.parametrize("array", [np.float32(3.5), np.arange(6).reshape(2, 3).T, np.zeros((0, 2)), np.ones((1,) * 12, np.complex64)])
def test_npy_files_come_back_alike(array: Any) -> None:
    read = arrays.from_npy(arrays.to_npy(np.asarray(array)))
    assert read.dtype == np.asarray(array).dtype
    assert read.shape == np.asarray(array).shape
    assert np.array_equal(read, array)


def test_objects_are_never_pickled() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.to_npy(np.array([object()]))


def test_raw_bytes_need_a_dtype_and_whole_items() -> None:
    data = np.arange(3, dtype=np.int64).tobytes()
    assert torch.equal(Tensor(bytes=data, dtype=torch.int64).unwrap(), torch.arange(3))
    assert Tensor(bytes=data, dtype=np.int64).unwrap().tolist() == [0, 1, 2]
    assert Tensor(bytes=b"", dtype=torch.int64).shape == (0,)
    with pytest.raises(ConfigTypeError, match=r"dtype=torch\.int64"):
        Tensor(bytes=data).unwrap()
    with pytest.raises(ConfigError, match="multiple of the 8 bytes"):
        Tensor(bytes=data[:-1], dtype=np.int64).unwrap()


def test_tensors_are_converted_to_either_librarys_dtype() -> None:
    assert Tensor(array=np.arange(3), dtype=torch.float16).unwrap().dtype == torch.float16
    assert Tensor(array=torch.arange(3), dtype=np.float32).unwrap().dtype == np.float32
    assert Tensor(array=[1, 2], dtype=np.int8).unwrap().dtype == np.int8
    tensor = torch.arange(3)
    assert Tensor(array=tensor).unwrap() is tensor
    assert arrays.from_npy(Tensor(array=tensor).encode()).tolist() == [0, 1, 2]
