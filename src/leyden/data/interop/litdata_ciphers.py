"""`FernetEncryption` and `RSAEncryption`, with the files that LitData's classes of these names save and load.

Both need `pip install "leyden[crypto]"`. In our own format an encryption object wraps a key for each chunk; in LitData's it
encrypts items (`level="sample"`) or whole chunks (`level="chunk"`), and RSA can only do so with a few hundred bytes.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any, Literal, final

from leyden.core.errors import ConfigError, StateError
from leyden.core.optional import require

Level = Literal["sample", "chunk"]
ITERATIONS = 480_000
SALT_BYTES = 16


@final
class FernetEncryption:
    """Symmetric encryption with a password (Fernet; the key is PBKDF2-HMAC-SHA256 of it, 480,000 rounds).

    Args:
        password: The password.
        level: What is encrypted in LitData's layout: `"sample"` or `"chunk"`.

    Example:
        >>> fernet = FernetEncryption("secret")
        >>> fernet.decrypt(fernet.encrypt(b"text"))
        b'text'
    """

    algorithm = "fernet"

    def __init__(self, password: str, level: Level = "sample") -> None:
        self.level = _checked(level)
        self.password = password
        self._set(os.urandom(SALT_BYTES))

    def encrypt(self, data: bytes) -> bytes:
        """Return the data encrypted."""
        return self._fernet().encrypt(data)

    def decrypt(self, data: bytes) -> bytes:
        """Return the data as it was."""
        return self._fernet().decrypt(data)

    def state_dict(self) -> dict[str, str]:
        """Return what an index says of it."""
        return {"algorithm": self.algorithm, "level": self.level}

    def save(self, file_path: str | os.PathLike[str]) -> None:
        """Write algorithm, level and salt, but not the password."""
        state = {**self.state_dict(), "salt": base64.urlsafe_b64encode(self.salt).decode()}
        Path(file_path).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls, file_path: str | os.PathLike[str], password: str) -> "FernetEncryption":
        """Return what was saved."""
        state = json.loads(Path(file_path).read_text(encoding="utf-8"))
        loaded = cls.__new__(cls)
        loaded.level, loaded.password = _checked(state["level"]), password
        loaded._set(base64.urlsafe_b64decode(state["salt"]))
        return loaded

    def _set(self, salt: bytes) -> None:
        hashes = require("cryptography.hazmat.primitives.hashes", purpose="FernetEncryption", extra="crypto")
        derivation = require("cryptography.hazmat.primitives.kdf.pbkdf2", purpose="FernetEncryption", extra="crypto")
        derived = derivation.PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=salt, iterations=ITERATIONS).derive(
            self.password.encode()
        )
        self.salt = salt
        self.key = base64.urlsafe_b64encode(derived)

    def _fernet(self) -> Any:
        return require("cryptography.fernet", purpose="FernetEncryption", extra="crypto").Fernet(self.key)


@final
class RSAEncryption:
    """Asymmetric encryption (RSA 2048, OAEP with MGF1 and SHA-256): whoever only writes needs no private key.

    Args:
        password: Protects the private key where it is saved.
        level: What is encrypted in LitData's layout: `"sample"` or `"chunk"`.
    """

    algorithm = "rsa"

    def __init__(self, password: str, level: Level = "sample") -> None:
        self.level = _checked(level)
        self.password = password
        private = _asymmetric("rsa").generate_private_key(public_exponent=65537, key_size=2048)
        self.private_key: Any = private
        self.public_key: Any = private.public_key()

    def encrypt(self, data: bytes) -> bytes:
        """Return the data encrypted."""
        if self.public_key is None:
            raise StateError("Public key not found. Load one with load_keys(…).")
        return self.public_key.encrypt(data, _oaep())

    def decrypt(self, data: bytes) -> bytes:
        """Return the data as it was."""
        if self.private_key is None:
            raise StateError("Private key not found. Load one with load_keys(…).")
        return self.private_key.decrypt(data, _oaep())

    def state_dict(self) -> dict[str, str]:
        """Return what an index says of it."""
        return {"algorithm": self.algorithm, "level": self.level}

    def save(self, file_path: str | os.PathLike[str]) -> None:
        """Write both keys and the password."""
        Path(file_path).write_text(json.dumps(self.__getstate__()), encoding="utf-8")

    @classmethod
    def load(cls, file_path: str | os.PathLike[str], password: str) -> "RSAEncryption":
        """Return what was saved; the password is the file's own."""
        state = json.loads(Path(file_path).read_text(encoding="utf-8"))
        loaded = cls.__new__(cls)
        loaded.__setstate__({**state, "password": state["password"] or password})
        return loaded

    def save_keys(self, private_key_path: str | os.PathLike[str], public_key_path: str | os.PathLike[str]) -> None:
        """Write the two keys as PEM files, the private one protected by the password."""
        state = self.__getstate__()
        if not state["private_key"] or not state["public_key"]:
            raise StateError("Keys not found. This object holds only one of the two.")
        Path(private_key_path).write_text(state["private_key"], encoding="utf-8")
        Path(public_key_path).write_text(state["public_key"], encoding="utf-8")

    def load_keys(self, private_key_path: str | os.PathLike[str], public_key_path: str | os.PathLike[str], password: str) -> None:
        """Take the keys of two PEM files."""
        pem = _serialization()
        self.private_key = pem.load_pem_private_key(Path(private_key_path).read_bytes(), password=password.encode() or None)
        self.public_key = pem.load_pem_public_key(Path(public_key_path).read_bytes())

    def __getstate__(self) -> dict[str, Any]:
        pem = _serialization()
        protection = pem.BestAvailableEncryption(self.password.encode()) if self.password else pem.NoEncryption()
        form = {"encoding": pem.Encoding.PEM}
        private = self.private_key and self.private_key.private_bytes(
            **form, format=pem.PrivateFormat.TraditionalOpenSSL, encryption_algorithm=protection
        )
        public = self.public_key and self.public_key.public_bytes(**form, format=pem.PublicFormat.SubjectPublicKeyInfo)
        return {
            "private_key": private and private.decode(),
            "public_key": public and public.decode(),
            "password": self.password,
            "level": self.level,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        pem = _serialization()
        self.password, self.level = state["password"] or "", _checked(state["level"])
        private, public = state["private_key"], state["public_key"]
        self.private_key = private and pem.load_pem_private_key(private.encode(), password=self.password.encode() or None)
        self.public_key = public and pem.load_pem_public_key(public.encode())


def _checked(level: str) -> Level:
    if level == "sample" or level == "chunk":
        return level
    raise ConfigError(f"The provided `level` should be either `sample` or `chunk`, not {level!r}.")


def _asymmetric(name: str) -> Any:
    return require(f"cryptography.hazmat.primitives.asymmetric.{name}", purpose="RSAEncryption", extra="crypto")


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", purpose="RSAEncryption", extra="crypto")


def _oaep() -> Any:
    hashes = require("cryptography.hazmat.primitives.hashes", purpose="RSAEncryption", extra="crypto")
    padding = _asymmetric("padding")
    return padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
