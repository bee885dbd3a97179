"""One API for each way to answer: a value, a batch, a tensor, a stream. All read `{"input": …}`."""

from collections.abc import Iterable, Iterator
from typing import Any

from leyden.serve.api import LitAPI


class SimpleLitAPI(LitAPI):
    """Squares a number: `{"input": 4.0}` → `{"output": 16.0}`.

    Example:
        >>> api = SimpleLitAPI()
        >>> api.setup("cpu")
        >>> api.encode_response(api.predict(api.decode_request({"input": 4.0})))
        {'output': 16.0}
    """

    def setup(self, device: Any) -> None:
        self.exponent = 2

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        return request["input"]

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return x**self.exponent

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"output": output}


class SimpleBatchedAPI(SimpleLitAPI):
    """Squares many numbers at once, as an array: `SimpleBatchedAPI(max_batch_size=4)`.

    Example:
        >>> api = SimpleBatchedAPI(max_batch_size=2)
        >>> api.setup("cpu")
        >>> batch = api.batch([api.decode_request({"input": value}) for value in (2.0, 3.0)])
        >>> [float(each) for each in api.unbatch(api.predict(batch))]
        [4.0, 9.0]
    """

    def setup(self, device: Any) -> None:
        import numpy as np  # here, and not where the server imports this file

        super().setup(device)
        self.to_array = np.asarray

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        return self.to_array(request["input"])


class SimpleTorchAPI(LitAPI):
    """Computes 2x + 1 with a layer of PyTorch: `{"input": 4.0}` → `{"output": 9.0}`.

    Example:
        >>> api = SimpleTorchAPI()
        >>> api.setup("cpu")
        >>> api.encode_response(api.predict(api.decode_request({"input": 4.0})))
        {'output': 9.0}
    """

    def setup(self, device: Any) -> None:
        import torch  # here, and not where the server imports this file

        self.model = torch.nn.Linear(1, 1).to(device).requires_grad_(requires_grad=False)
        self.model.weight.fill_(2.0)
        self.model.bias.fill_(1.0)

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        return self.model.weight.new_tensor([request["input"]])  # of the model's type, on its device

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return self.model(x)

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"output": float(output)}


class SimpleStreamAPI(LitAPI):
    """Says its input three times, numbered, in three chunks: `SimpleStreamAPI(stream=True)`.

    Example:
        >>> api = SimpleStreamAPI(stream=True)
        >>> list(api.encode_response(api.predict("hi")))
        [{'output': '0: hi'}, {'output': '1: hi'}, {'output': '2: hi'}]
    """

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        return request["input"]

    def predict(self, x: Any, **kwargs: Any) -> Iterator[str]:
        for number in range(3):
            yield f"{number}: {x}"

    def encode_response(self, output: Iterable[Any], **kwargs: Any) -> Iterator[dict[str, Any]]:
        for each in output:
            yield {"output": each}
