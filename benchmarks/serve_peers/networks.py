"""The networks that are served on a GPU, the same for every server: convolutions for small images, and a decoder with a cache.

Weights are random: what is measured is what serving adds, and that does not depend on what a network has learned.
"""

from typing import Any

import torch
from torch import nn

CLASSES, VOCABULARY = 10, 256


def convolutions(device: Any) -> nn.Module:
    """Return a network that classifies images: uint8 (batch, 3, 32, 32) in, (batch, 10) out, both in the CPU's memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Convolutions().to(device).eval()


def decoder(device: Any, slots: int, width: int, layers: int) -> "Decoder":
    """Return a decoder with room for so many texts."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Decoder(slots, width, layers).to(device).eval()


class Convolutions(nn.Module):
    """Four layers of convolutions and one that classifies."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 2)]  # channels in and out, stride
        layers = [layer for before, after, stride in shapes for layer in (nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images; all of a batch travel together."""
        device = next(self.parameters()).device
        return self.layers(images.to(device).float() / 255).cpu()


class Decoder(nn.Module):
    """A small transformer that keeps the keys and values of several texts, each in a slot of its own.

    Args:
        slots: For how many texts there is room.
        width: Of its layers.
        layers: How many.
        length: How long a text may be.
    """

    def __init__(self, slots: int, width: int = 256, layers: int = 4, length: int = 512) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([_Block(slots, width, length) for _ in range(layers)])
        self.leave = nn.Linear(width, VOCABULARY)

    @torch.inference_mode()
    def forward(self, tokens: list[list[int]], slots: list[int], starts: list[int]) -> list[int]:
        """Read more of some texts, and return the next token of each.

        Args:
            tokens: What is read of each, equally many.
            slots: Where the texts are kept.
            starts: How much of each was read before.
        """
        device = self.leave.weight.device
        read, rows = torch.tensor(tokens, device=device), torch.tensor(slots, device=device)  # (batch, length), (batch,)
        length = read.shape[1]
        places = torch.tensor(starts, device=device)[:, None] + torch.arange(length, device=device)
        known = torch.arange(max(starts) + length, device=device)
        mask = (known <= places[..., None])[:, None]  # (batch, 1, length, known)
        x = self.tokens(read) + self.places(places)
        for block in self.blocks:
            x = block(x, rows, places, mask)
        following: list[int] = self.leave(x[:, -1]).argmax(-1).tolist()
        return following


class _Block(nn.Module):
    """Attention over what a slot knows, and two layers."""

    heads = 4

    def __init__(self, slots: int, width: int, length: int) -> None:
        super().__init__()
        self.norm, self.norm_up = nn.LayerNorm(width), nn.LayerNorm(width)
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        cache = torch.zeros(slots, length, self.heads, width // self.heads)
        self.register_buffer("keys", cache, persistent=False)
        self.register_buffer("values", cache.clone(), persistent=False)

    def forward(self, x: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.enter(self.norm(x)).view(batch, length, 3, self.heads, -1).unbind(2)
        self.keys[rows[:, None], places], self.values[rows[:, None], places] = k, v
        known = mask.shape[-1]
        k, v = self.keys[rows, :known], self.values[rows, :known]  # (batch, known, heads, width of a head)
        seen = nn.functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        x = x + self.leave(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm_up(x))))
