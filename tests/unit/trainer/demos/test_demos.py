"""Boring models and language models: shapes, data, and a step each."""

from pathlib import Path

import pytest
import torch

from leyden.core.errors import NotFoundError
from leyden.trainer.demos import boring_classes as boring
from leyden.trainer.demos.lstm import LightningLSTM, SequenceSampler
from leyden.trainer.demos.transformer import LightningTransformer, Transformer, WikiText2


@pytest.fixture
def text(tmp_path: Path) -> WikiText2:
    (tmp_path / "wikitext-2.txt").write_text("a b c d\ne f g h\n" * 10)
    return WikiText2(tmp_path, block_size=4, download=False)


def test_data_sets_have_what_they_say() -> None:
    assert boring.RandomDataset(3, 5)[0].shape == (3,)
    row = boring.RandomDictDataset(3, 5)[1]
    assert torch.equal(row["b"], row["a"] + 2)
    assert len(list(boring.RandomIterableDataset(3, 5))) == 5
    assert len(boring.RandomIterableDatasetWithLen(3, 5)) == 5


@pytest.mark.parametrize("module", [boring.BoringDataModule, boring.BoringDataModuleNoLen], ids=["sized", "streams"])
def test_data_modules_give_64_batches_for_every_stage(module: type) -> None:
    data = module()
    data.prepare_data()
    for stage, names in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}.items():
        data.setup(stage)
        for name in names:
            assert sum(1 for _ in getattr(data, f"{name}_dataloader")()) == 64


def test_the_stages_of_a_data_module_share_no_row() -> None:
    data = boring.BoringDataModule()
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    rows = torch.cat([torch.stack(list(part)) for part in (data.random_train, data.random_val, data.random_test, data.random_predict)])
    assert len(rows.unique(dim=0)) == 256


def test_iterables_of_loaders_come_in_pairs() -> None:
    data = boring.IterableBoringDataModule()
    data.setup("fit")
    assert [len(loader) for loader in data.train_dataloader()] == [16, 16]


def test_boring_steps_return_what_is_documented() -> None:
    model, batch = boring.BoringModel(), torch.randn(2, 32)
    assert set(model.training_step(batch, 0)) == {"loss"}
    assert set(model.validation_step(batch, 0)) == {"x"}
    assert set(model.test_step(batch, 0)) == {"y"}
    assert boring.DemoModel(out_dim=3)(batch).shape == (2, 3)


def test_blocks_are_followed_by_themselves_one_word_later(text: WikiText2) -> None:
    inputs, target = text[1]
    assert torch.equal(inputs[1:], target[:-1])
    assert text.vocab_size == 9  # eight words and the end of a line
    assert len(text) == 24


def test_a_text_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="download=False"):
        WikiText2(tmp_path, download=False)


def test_the_transformer_does_not_see_later_targets() -> None:
    model = Transformer(vocab_size=10, ninp=8, nhid=8).eval()
    inputs = torch.zeros(1, 5, dtype=torch.long)
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 4, 6]])
    assert torch.allclose(model(inputs, one)[:4], model(inputs, other)[:4])
    assert not torch.allclose(model(inputs, one)[4], model(inputs, other)[4])


def test_strands_go_on_where_they_ended(text: WikiText2) -> None:
    batches = list(SequenceSampler(text, batch_size=5))
    assert len(batches) == len(SequenceSampler(text, batch_size=5)) == 4
    assert batches[0] == [0, 4, 8, 12, 16]
    assert batches[1] == [1, 5, 9, 13, 17]


def test_language_models_have_a_loss() -> None:
    batch = (torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long))
    transformer, lstm = LightningTransformer(vocab_size=10), LightningLSTM(vocab_size=10)
    for model in (transformer, lstm):
        model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        assert model.training_step(batch, 0).ndim == 0
    assert lstm.hidden is not None
    assert not lstm.hidden[0].requires_grad
    lstm.on_train_epoch_end()
    assert lstm.hidden is None


def test_documented_models_are_found_at_the_folder_too() -> None:
    from leyden.trainer import demos

    assert (demos.Transformer, demos.WikiText2, demos.LightningTransformer) == (Transformer, WikiText2, LightningTransformer)
    assert (demos.LightningLSTM, demos.SequenceSampler) == (LightningLSTM, SequenceSampler)
