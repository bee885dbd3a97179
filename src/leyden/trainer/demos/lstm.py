"""A recurrent language model that carries its state from batch to batch, on WikiText-2.

Batches follow each other in the text: `SequenceSampler` cuts it into as many strands as a batch has rows.
"""

from collections.abc import Iterator, Sized
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Sampler

from leyden.trainer.core.module import LightningModule
from leyden.trainer.demos.transformer import WikiText2

State = tuple[Tensor, Tensor]
_BATCH_SIZE = 20


class SequenceSampler(Sampler[list[int]]):
    """Batches whose row i goes on where row i of the batch before ended.

    Args:
        dataset: What is sampled; its order is the text's.
        batch_size: Rows of a batch; a rest that fills no batch is left out.

    Example:
        >>> list(SequenceSampler(range(6), batch_size=2))
        [[0, 3], [1, 4], [2, 5]]
    """

    def __init__(self, dataset: Sized, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.chunk_size = len(dataset) // batch_size

    def __iter__(self) -> Iterator[list[int]]:
        strands = range(0, self.chunk_size * self.batch_size, max(self.chunk_size, 1))
        for position in range(self.chunk_size):
            yield [start + position for start in strands]

    def __len__(self) -> int:
        return self.chunk_size


class SimpleLSTM(nn.Module):
    """An LSTM over words.

    Args:
        vocab_size: Words of the vocabulary.
        ninp: Channels of a word.
        nhid: Channels of the state.
        nlayers: Layers.
        dropout: Share of activations dropped in training.

    Example:
        >>> import torch
        >>> model = SimpleLSTM(vocab_size=10)
        >>> log_probabilities, state = model(torch.zeros(2, 5, dtype=torch.long), model.init_hidden(2))
        >>> log_probabilities.shape
        torch.Size([10, 10])
    """

    def __init__(self, vocab_size: int = 33278, ninp: int = 512, nhid: int = 512, nlayers: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        self.nlayers = nlayers
        self.nhid = nhid
        self.vocab_size = vocab_size
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Embedding(vocab_size, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout, batch_first=True)
        self.decoder = nn.Linear(nhid, vocab_size)

    def forward(self, input: Tensor, hidden: State) -> tuple[Tensor, State]:
        """Return the logarithm of each word's probability (B·T, V), and the next state."""
        output, hidden = self.rnn(self.dropout(self.encoder(input)), hidden)
        return nn.functional.log_softmax(self.decoder(self.dropout(output)).view(-1, self.vocab_size), dim=1), hidden

    def init_hidden(self, batch_size: int) -> State:
        """Return a state of zeros."""
        zeros = self.decoder.weight.new_zeros(self.nlayers, batch_size, self.nhid)
        return zeros, zeros.clone()


class LightningLSTM(LightningModule):
    """`SimpleLSTM` as a module for the trainer.

    Args:
        vocab_size: Words of the vocabulary.
    """

    def __init__(self, vocab_size: int = 33278) -> None:
        super().__init__()
        self.model = SimpleLSTM(vocab_size=vocab_size)
        self.hidden: State | None = None

    def on_train_epoch_end(self) -> None:
        self.hidden = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        inputs, target = batch
        hidden = self.model.init_hidden(inputs.size(0)) if self.hidden is None else self.hidden
        output, (state, cell) = self.model(inputs, hidden)
        self.hidden = (state.detach(), cell.detach())  # gradients stop at the batch
        loss = nn.functional.nll_loss(output, target.reshape(-1))
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def prepare_data(self) -> None:
        WikiText2(download=True)

    def train_dataloader(self) -> Any:
        dataset = WikiText2(download=False)
        return DataLoader(dataset, batch_sampler=SequenceSampler(dataset, batch_size=_BATCH_SIZE))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=20.0)
