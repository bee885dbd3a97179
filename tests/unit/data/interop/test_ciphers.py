"""Fernet and RSA: files that are saved and loaded, keys alone, and what is missing."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, StateError
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.interop.litdata_ciphers import FernetEncryption, RSAEncryption

pytest.importorskip("cryptography")


def test_fernet_is_saved_without_its_password(tmp_path: Path) -> None:
    fernet = FernetEncryption("secret", level="chunk")
    fernet.save(tmp_path / "key.json")
    assert "secret" not in (tmp_path / "key.json").read_text()
    loaded = FernetEncryption.load(tmp_path / "key.json", "secret")
    assert loaded.decrypt(fernet.encrypt(b"abc")) == b"abc"
    assert loaded.state_dict() == {"algorithm": "fernet", "level": "chunk"}


def test_rsa_is_saved_loaded_and_pickled(tmp_path: Path) -> None:
    rsa = RSAEncryption("secret")
    rsa.save(tmp_path / "key.json")
    for other in (RSAEncryption.load(tmp_path / "key.json", "secret"), pickle.loads(pickle.dumps(rsa))):
        assert other.decrypt(rsa.encrypt(b"abc")) == b"abc"


def test_rsa_keys_travel_alone(tmp_path: Path) -> None:
    rsa, other = RSAEncryption("secret"), RSAEncryption("")
    rsa.save_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    other.load_keys(tmp_path / "private.pem", tmp_path / "public.pem", "secret")
    assert other.decrypt(rsa.encrypt(b"abc")) == b"abc"
    other.private_key = None
    with pytest.raises(StateError, match="load_keys"):
        other.decrypt(b"")
    other.public_key = None
    with pytest.raises(StateError, match="Public key not found"):
        other.encrypt(b"")
    with pytest.raises(StateError, match="Keys not found"):
        other.save_keys(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("kind", [FernetEncryption, RSAEncryption])
def test_both_wrap_the_keys_of_our_own_format(kind: Any) -> None:
    key = kind("secret")
    ciphers = DatasetCiphers(key)
    cipher, salt, wrapped = ciphers.new_chunk(5)
    stored = cipher.encrypt(b"abc", 0, 0, 3, 4)
    again = DatasetCiphers(key, ciphers.entry).of_chunk(5, salt, wrapped)
    assert bytes(again.decrypt(stored, 0, 0, 3, 4)) == b"abc"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="should be either `sample` or `chunk`"):
        FernetEncryption("x", level="batch")  # type: ignore[arg-type]
