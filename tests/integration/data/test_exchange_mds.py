"""Datasets that MosaicML Streaming itself writes are read here bit for bit."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leyden.core.errors import CorruptDataError
from leyden.data.interop.mds import MdsSource
from tests.support.foreign_rows import plain, same, samples
from tests.support.peers import peer_python, run_peer

SCRIPT = Path(__file__).parents[2] / "support/mds_cases.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the environment may have to be made first


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mds")
    run_peer(peer_python("mosaicml"), SCRIPT, "write", str(folder))
    return folder


def chw(pil: Any) -> Any:
    """Return what an image that MDS gives as Pillow's is here."""
    _, mode, size, pixels = pil
    image = Image.frombytes(mode, size, pixels)
    return "numpy", "uint8", np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["plain", "hashed", "zstd", "gz", "bz2", "br", "snappy"])
def test_every_encoding_and_compression_is_read(name: str, written: Path) -> None:
    if name in {"br", "snappy"}:
        pytest.importorskip({"br": "brotli", "snappy": "snappy"}[name])
    source = pickle.loads(pickle.dumps(MdsSource(str(written / name))))
    rows = [plain(row) for row in samples(source, output="numpy")]
    theirs = pickle.loads((written / f"{name}.pickle").read_bytes())
    assert len(rows) == len(theirs) == 12
    for ours, row in zip(rows, theirs, strict=True):
        jpeg = ours.pop("jpeg")[2]
        assert jpeg.shape == (3, 5, 4)  # they keep the pixels, the file is lossy
        row.pop("jpeg")
        expected = {key: chw(value) if key == "png" else [chw(v) for v in value] if key == "imgs" else value for key, value in row.items()}
        assert same(ours, {key: expected[key] for key in ours})
        assert set(ours) == set(expected)


def test_a_flipped_byte_is_found_by_the_shards_hash(written: Path, tmp_path: Path) -> None:
    for file in (written / "hashed").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.mds"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptDataError, match="where the index says"):
        samples(MdsSource(str(tmp_path)))
