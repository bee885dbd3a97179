"""The services that are measured on a GPU, written for LitServe by its documentation. Leyden runs this file too, its imports changed.

`python gpu.py CASE PORT` serves one of `CASES` on 127.0.0.1. A text is `{"prompt": [1, 2, 3], "tokens": 20}`, and its answer a
line `{"token": 7}` for each token.
"""

import argparse
import base64
from collections import deque
from typing import Any

import litserve as ls
from litserve.loops import ContinuousBatchingLoop, Output


class Images(ls.LitAPI):
    """Classifies images in batches: `{"image": …}`, the bytes of 3x32x32 pixels in base64."""

    def setup(self, device: Any) -> None:
        from benchmarks.serve_peers.networks import convolutions

        self.model = convolutions(device)

    def decode_request(self, request) -> Any:
        import torch

        return torch.frombuffer(bytearray(base64.b64decode(request["image"])), dtype=torch.uint8).view(3, 32, 32)

    def predict(self, x: Any) -> Any:
        return self.model(x)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        return {"output": output.tolist()}


class Writing(ls.LitAPI):
    """Has a decoder.

    Args:
        args: Of the command line.
        slots: How many texts it computes at once.
        options: Of `LitAPI`.
    """

    def __init__(self, args: argparse.Namespace, slots: int = 1, **options: Any) -> None:
        super().__init__(stream=True, max_batch_size=slots, **options)
        self.slots, self.size = slots, (args.width, args.layers)

    def setup(self, device: Any) -> None:
        from benchmarks.serve_peers.networks import decoder

        self.decoder = decoder(device, self.slots, *self.size)


class OneByOne(Writing):
    """Writes one text after the other."""

    def decode_request(self, request) -> Any:
        return request["prompt"], request["tokens"]

    def predict(self, x: Any) -> Any:
        prompt, count = x
        read, place = prompt, 0
        for _ in range(count):
            token = self.decoder([read], [0], [place])[0]
            yield token
            read, place = [token], place + len(read)

    def encode_response(self, outputs: Any) -> Any:
        for output in outputs:
            yield {"token": output}


class Text:
    """A text that is being written.

    Args:
        slot: Where the decoder keeps it.
        prompt: How it begins.
        count: How many tokens it gets.
    """

    def __init__(self, slot: int, prompt: list[int], count: int) -> None:
        self.slot, self.read, self.place, self.left = slot, prompt, 0, count

    def go_on(self, token: int) -> None:
        """Take the next token."""
        self.place += len(self.read)
        self.read, self.left = [token], self.left - 1


def advance(model: Any, texts: list[Text]) -> None:
    """Compute one more token of texts that go on; of those that begin, each by itself, for its prompt has a length of its own."""
    begin = [[text] for text in texts if not text.place]
    goes_on = [text for text in texts if text.place]
    for together in [*begin, goes_on] if goes_on else begin:
        tokens = model([text.read for text in together], [text.slot for text in together], [text.place for text in together])
        for text, token in zip(together, tokens, strict=True):
            text.go_on(token)


class Together(Writing):
    """Writes texts in batches, each of which ends with its longest."""

    def decode_request(self, request) -> Any:
        return request["prompt"], request["tokens"]

    def predict(self, x: Any) -> Any:
        texts = [Text(slot, *each) for slot, each in enumerate(x)]
        while active := [text for text in texts if text.left]:
            advance(self.decoder, active)
            yield [text.read[0] if text in active else "" for text in texts]

    def encode_response(self, outputs: Any) -> Any:
        for tokens in outputs:
            yield ["" if token == "" else {"token": token} for token in tokens]


class Continuous(Writing):
    """Writes texts that join and leave between two steps.

    LitServe calls `step` in a thread, and `add_request` meanwhile: so what joins waits until `step` takes it in.
    """

    def setup(self, device: Any) -> None:
        super().setup(device)
        self.free, self.active = list(range(self.slots)), dict[str, Text]()
        self.waiting = deque[tuple[str, Any]]()

    def decode_request(self, request) -> Any:
        return request

    def add_request(self, uid: str, request: Any) -> None:
        self.waiting.append((uid, request))

    def has_capacity(self) -> bool:
        return len(self.waiting) + len(self.active) < self.slots

    def has_active_requests(self) -> bool:
        return bool(self.waiting or self.active)

    def step(self, prev_outputs: Any) -> Any:
        while self.waiting and self.free:
            uid, request = self.waiting.popleft()
            self.active[uid] = Text(self.free.pop(), request["prompt"], request["tokens"])
        advance(self.decoder, list(self.active.values()))
        return [output for uid, text in list(self.active.items()) for output in self.outputs(uid, text)]

    def outputs(self, uid: str, text: Text) -> list[Any]:
        """Return a text's new token, and its end if that was the last one."""
        made = [Output(uid, text.read[0], "OK")]
        if not text.left:
            self.cancel_request(uid)
            made.append(Output(uid, "", "FINISH_STREAMING"))
        return made

    def cancel_request(self, uid: str) -> None:
        """Drop a text."""
        if uid in self.active:
            self.free.append(self.active.pop(uid).slot)
        self.waiting = deque(each for each in self.waiting if each[0] != uid)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"token": output}


CASES = {
    "images": lambda args: Images(max_batch_size=args.batch, batch_timeout=args.batch_timeout),
    "one-by-one": OneByOne,
    "together": lambda args: Together(args, args.batch),
    "continuous": lambda args: Continuous(args, args.batch, loop=ContinuousBatchingLoop()),
}


def main() -> None:
    """Serve a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("port", type=int)
    parser.add_argument("--accelerator", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-timeout", type=float, default=0.0)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    server = ls.LitServer(CASES[args.case](args), accelerator=args.accelerator, devices=1)
    server.run(host="127.0.0.1", port=args.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
