"""Datasets that LitData 0.2.76 itself writes are read here bit for bit."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataset, TokensLoader
from leyden.data.interop.litdata_ciphers import FernetEncryption, RSAEncryption
from leyden.data.interop.litdata_read import LitdataSource
from tests.support.foreign_rows import plain, same, samples
from tests.support.peers import peer_python, run_peer

SCRIPT = Path(__file__).parents[2] / "support/litdata_cases.py"
PLAIN = ["everything", "dict", "ints", "jsons", "flat", "flat_zstd", "whole_zstd", "framed", "sample_zstd", "graph", "hetero"]
SECRET = {"fernet_sample": "sample", "fernet_chunk": "chunk", "fernet_chunk_zstd": "chunk", "rsa": "rsa"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the environment may have to be made first


@pytest.fixture(scope="module")
def litdata() -> str:
    return peer_python("litdata", ["zstd", "pyarrow", "cryptography"])


@pytest.fixture(scope="module")
def written(litdata: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("litdata")
    run_peer(litdata, SCRIPT, "write", str(folder))
    return folder


def theirs(folder: Path, name: str) -> list[Any]:
    return pickle.loads((folder / f"{name}.pickle").read_bytes())


def key_of(folder: Path, name: str) -> Any:
    kind = RSAEncryption if SECRET[name] == "rsa" else FernetEncryption
    return kind.load(folder / f"{SECRET[name]}.json", "pw")


def ours(source: LitdataSource, **options: Any) -> list[Any]:
    travelled = pickle.loads(pickle.dumps(source))
    return [plain(row) for row in samples(travelled, **options)]


@pytest.mark.parametrize("name", PLAIN)
def test_every_leaf_and_file_variant_is_read_as_litdata_reads_it(name: str, written: Path) -> None:
    assert same(ours(LitdataSource(str(written / name))), theirs(written, name))


@pytest.mark.parametrize("name", PLAIN)
def test_streaming_datasets_give_the_rows_that_litdatas_give(name: str, written: Path) -> None:
    dataset = StreamingDataset(str(written / name))
    expected = theirs(written, name)
    assert same([plain(row) for row in dataset], expected)
    assert same(plain(dataset[-1]), expected[-1])


def test_shuffled_litdata_rows_come_once_and_resume(written: Path) -> None:
    dataset = StreamingDataset(str(written / "ints"), shuffle=True, seed=3)
    whole = list(dataset)
    assert sorted(whole) == list(range(700)) != whole
    again = StreamingDataset(str(written / "ints"), shuffle=True, seed=3)
    again.load_state_dict(dataset.state_dict(num_samples_yielded=300))
    assert list(again) == whole[300:]


@pytest.mark.parametrize("name", SECRET)
def test_encrypted_datasets_are_read_with_litdatas_saved_keys(name: str, written: Path) -> None:
    assert same(ours(LitdataSource(str(written / name), encryption=key_of(written, name))), theirs(written, name))


def test_a_missing_or_other_key_is_told_with_litdatas_words(written: Path) -> None:
    with pytest.raises(ConfigError, match="Data is encrypted but no encryption object was provided"):
        LitdataSource(str(written / "rsa"))
    with pytest.raises(ConfigError, match="Encryption algorithm mismatch"):
        LitdataSource(str(written / "rsa"), encryption=key_of(written, "fernet_sample"))
    with pytest.raises(ConfigError, match="Encryption level mismatch"):
        LitdataSource(str(written / "fernet_chunk"), encryption=key_of(written, "fernet_sample"))


@pytest.mark.parametrize("name", ["tokens", "tokens_zstd"])
def test_token_windows_are_litdatas(name: str, written: Path) -> None:
    assert same(ours(LitdataSource(str(written / name), block_size=8)), theirs(written, name))
    with pytest.raises(ConfigError, match="block_size=2049"):
        LitdataSource(str(written / name))
    dataset = StreamingDataset(str(written / name), item_loader=TokensLoader(block_size=8))
    assert same([plain(row) for row in dataset], theirs(written, name))
    with pytest.raises(ConfigError, match="the largest has"):
        LitdataSource(str(written / name), block_size=100_000)


def test_pickled_leaves_are_read_on_trust_only(written: Path) -> None:
    source = LitdataSource(str(written / "pickled"))
    assert same(ours(source, trust=True), theirs(written, "pickled"))
    with pytest.raises(ConfigError, match="trust=True"):
        ours(source)


def test_files_that_litdata_decompressed_in_place_are_still_read(written: Path) -> None:
    assert not list((written / "whole_zstd.copy").glob("*.zstd.bin"))
    assert same(ours(LitdataSource(str(written / "whole_zstd.copy"))), theirs(written, "whole_zstd"))
