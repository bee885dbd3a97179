"""Exports say what is missing before they touch the module."""

import pytest
from torch import nn

from leyden.core.errors import ConfigError, MissingDependencyError
from leyden.core.optional import installed
from leyden.trainer import LightningModule


class Linear(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)


@pytest.mark.skipif(installed("onnxscript"), reason="onnxscript is installed")
def test_onnx_without_its_package_names_the_package() -> None:
    module = Linear()
    with pytest.raises(MissingDependencyError, match="pip install onnxscript"):
        module.to_onnx(input_sample=(1,))
    assert module.training


def test_onnx_without_a_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="input_sample"):
        Linear().to_onnx()
