"""A small language model with attention, and WikiText-2 to train it on.

`Transformer` predicts, for each word of a block, the next one. For examples and tests: plain code, no tricks.
Shapes: B batch, T tokens of a block, C channels, V words of the vocabulary.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

from leyden.core.errors import NotFoundError
from leyden.core.files import write_atomic
from leyden.core.storage import open_storage
from leyden.trainer.core.module import LightningModule

_URL = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"


class Transformer(nn.Module):
    """An encoder that also looks at the targets of earlier positions.

    Args:
        vocab_size: Words of the vocabulary.
        ninp: Channels.
        nhead: Heads of attention.
        nhid: Channels inside of feed-forward layers.
        nlayers: Layers.
        dropout: Share of activations dropped in training.

    Example:
        >>> model = Transformer(vocab_size=10, ninp=8, nhid=8)
        >>> model(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([10, 10])
    """

    def __init__(
        self, vocab_size: int = 33278, ninp: int = 200, nhead: int = 2, nhid: int = 200, nlayers: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.ninp = ninp
        self.vocab_size = vocab_size
        self.pos_encoder = PositionalEncoding(ninp)
        self.embedding = nn.Embedding(vocab_size, ninp)
        self.transformer = nn.Transformer(ninp, nhead, nlayers, nlayers, nhid, dropout, batch_first=True)
        self.decoder = nn.Linear(ninp, vocab_size)

    def forward(self, inputs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of each word's probability.

        Args:
            inputs: int64 (B, T).
            target: int64 (B, T); position t sees targets up to t.
            mask: float (T, T), what each position may not see; by default what comes later.

        Shape:
            float (B·T, V).
        """
        if mask is None:
            mask = nn.Transformer.generate_square_subsequent_mask(inputs.size(1), device=inputs.device)
        scale = math.sqrt(self.ninp)
        source_BTC = self.pos_encoder(self.embedding(inputs) * scale)  # noqa: N806 - a shape
        target_BTC = self.pos_encoder(self.embedding(target) * scale)  # noqa: N806 - a shape
        out_BTC = self.transformer(source_BTC, target_BTC, tgt_mask=mask)  # noqa: N806 - a shape
        return nn.functional.log_softmax(self.decoder(out_BTC), dim=-1).view(-1, self.vocab_size)


class PositionalEncoding(nn.Module):
    """Adds sines of each position (Vaswani et al. 2017), then drops out.

    Args:
        dim: Channels; even.
        dropout: Share of activations dropped in training.
        max_len: The longest block.
    """

    pe: Tensor

    def __init__(self, dim: int, dropout: float = 0.1, max_len: int = 5000) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        angles = torch.arange(max_len)[:, None] / 10_000 ** (torch.arange(0, dim, 2) / dim)
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[: x.size(1)])


class Dictionary:
    """Words and their numbers.

    Example:
        >>> words = Dictionary()
        >>> words.add_word("a"), words.add_word("b"), words.add_word("a"), len(words)
        (0, 1, 0, 2)
    """

    def __init__(self) -> None:
        self.word2idx: dict[str, int] = {}
        self.idx2word: list[str] = []

    def add_word(self, word: str) -> int:
        """Return a word's number, a new one for a new word."""
        if word not in self.word2idx:
            self.word2idx[word] = len(self.idx2word)
            self.idx2word.append(word)
        return self.word2idx[word]

    def __len__(self) -> int:
        return len(self.idx2word)


class WikiText2(Dataset[tuple[Tensor, Tensor]]):
    """Blocks of words of WikiText-2 (Merity et al. 2016), each with the same block one word later.

    Args:
        data_dir: Where `wikitext-2.txt` lies; any text of that name is taken.
        block_size: Words of a block.
        download: Whether to fetch it if it is not there.

    Raises:
        NotFoundError: It is not there, and not to be fetched.
        StorageError: It cannot be fetched.
    """

    def __init__(self, data_dir: Path | str = Path("./data"), block_size: int = 35, download: bool = True) -> None:  # noqa: FBT001, FBT002 - the documented signature
        self.path = Path(data_dir) / "wikitext-2.txt"
        if not self.path.exists():
            if not download:
                raise NotFoundError(f"There is no {self.path}, and download=False. Use download=True, or put a text there.")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, bytes(open_storage(_URL).read("train.txt")))
        self.block_size = block_size
        self.dictionary = Dictionary()
        lines = self.path.read_text(encoding="utf-8").splitlines()
        self.data = torch.tensor([self.dictionary.add_word(word) for line in lines for word in (*line.split(), "<eos>")])

    @property
    def vocab_size(self) -> int:
        """Words of the vocabulary."""
        return len(self.dictionary)

    def __len__(self) -> int:
        return (len(self.data) - 1) // self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = index * self.block_size
        return self.data[start : start + self.block_size], self.data[start + 1 : start + 1 + self.block_size]


class LightningTransformer(LightningModule):
    """`Transformer` as a module for the trainer.

    Args:
        vocab_size: Words of the vocabulary.
    """

    def __init__(self, vocab_size: int = 33278) -> None:
        super().__init__()
        self.model = Transformer(vocab_size=vocab_size)

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        return self.model(inputs, target)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        loss = self._loss(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        self.log("val_loss", self._loss(batch), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        self.log("test_loss", self._loss(batch), prog_bar=True)

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, target = batch
        return nn.functional.nll_loss(self(inputs, target), target.reshape(-1))

    def configure_optimizers(self) -> Any:
        return SGD(self.model.parameters(), lr=0.1)

    def prepare_data(self) -> None:
        WikiText2(download=True)

    def train_dataloader(self) -> Any:
        return DataLoader(WikiText2(download=False))
