"""Encryption: AES-256-GCM for every buffer, under a key of the chunk's own.

A chunk's key is derived from the master key and the chunk's random salt; with a foreign `Encryption` object it is random and
wrapped by that object. So a nonce, block and buffer number, is used once for each key, whatever runs again.
"""

import base64
import functools
import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from typing import Any, Protocol, final

from leyden.core.errors import ConfigError, CorruptDataError, StateError
from leyden.core.optional import require

KEY_BYTES = SALT_BYTES_OF_PASSWORD = 32
SALT_BYTES, TAG_BYTES = 16, 16
NAME, EXTERNAL = "aes-256-gcm", "external"
_NONCE, _ASSOCIATED = struct.Struct("<III"), struct.Struct("<QIIQB")
_INFO, _CHECKED, _CHECK_DIGITS = b"leyden-data-1", b"leyden-data-1 check", 16
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}


class Encryption(Protocol):
    """An object that encrypts a few bytes, such as `FernetEncryption`: here it wraps one key for each chunk."""

    @property
    def algorithm(self) -> str:
        """Its name, compared on reading."""
        ...

    @property
    def level(self) -> str:
        """`sample` or `chunk`, for LitData's layout; compared on reading."""
        ...

    def encrypt(self, data: bytes) -> bytes:
        """Return the bytes encrypted."""
        ...

    def decrypt(self, data: bytes) -> bytes:
        """Return the bytes that were encrypted."""
        ...


@final
class AesGcm:
    """Encrypts a dataset with a key or a password.

    Args:
        key: 32 bytes.
        password: Any text; a key is derived from it with scrypt.

    Raises:
        ConfigError: Neither or both, or a key of another length.

    Example:
        >>> AesGcm(key=bytes(32)).algorithm
        'aes-256-gcm'
    """

    algorithm, level = NAME, "buffer"

    def __init__(self, *, key: bytes | None = None, password: str | None = None) -> None:
        if (key is None) == (password is None):
            raise ConfigError("AesGcm takes one of key= (32 bytes) and password=.")
        if key is not None and len(key) != KEY_BYTES:
            raise ConfigError(f"AesGcm(key=…) of {len(key)} bytes: a key has {KEY_BYTES}. Make one with os.urandom(32).")
        self._key, self._password = key, password
        self._masters: dict[bytes, bytes] = {}  # by salt: scrypt takes a tenth of a second

    def __reduce__(self) -> Any:
        return functools.partial(AesGcm, key=self._key, password=self._password), ()

    def __repr__(self) -> str:
        return f"AesGcm({'key' if self._key is not None else 'password'}=…)"

    def master(self, salt: bytes) -> bytes:
        """Return the master key of a dataset with this salt."""
        if self._key is not None:
            return self._key
        if salt not in self._masters:
            scrypt = require("cryptography.hazmat.primitives.kdf.scrypt", extra="crypto", purpose="AesGcm", package="cryptography")
            self._masters[salt] = bytes(scrypt.Scrypt(salt=salt, length=KEY_BYTES, **_SCRYPT).derive(str(self._password).encode()))
        return self._masters[salt]


@final
class DatasetCiphers:
    """Gives each chunk of a dataset its cipher.

    Args:
        encryption: `AesGcm`, or an `Encryption`.
        entry: What the manifest says of it; `None` for a new dataset.

    Raises:
        ConfigError: The dataset was encrypted in another way, or with another key.
    """

    def __init__(self, encryption: AesGcm | Encryption, entry: Mapping[str, Any] | None = None) -> None:
        self._encryption = encryption
        self.entry = dict(entry) if entry is not None else _new_entry(encryption)
        _check_alike(self.entry, encryption)
        is_own = isinstance(encryption, AesGcm)
        self._master = encryption.master(base64.b64decode(self.entry["salt"])) if is_own else None  # type: ignore[union-attr]
        if entry is None:
            self.entry["check"] = self._new_check()
        elif "check" in self.entry and not self._has_key(str(self.entry["check"])):
            raise ConfigError(
                f"encryption={self._encryption!r}: the key or password is another one than the dataset was written with. Pass the same "
                "key or password, or of a FernetEncryption the file that its save(…) wrote: FernetEncryption.load(file, password)."
            )

    def _new_check(self) -> str:
        """Return what says later on whether a key is this one, and nothing else about it."""
        if self._master is not None:
            return hmac.new(self._master, _CHECKED, hashlib.sha256).hexdigest()[:_CHECK_DIGITS]
        return base64.b64encode(self._encryption.encrypt(_CHECKED)).decode()  # type: ignore[union-attr]

    def _has_key(self, check: str) -> bool:
        if self._master is not None:
            return hmac.compare_digest(self._new_check(), check)
        try:
            return bytes(self._encryption.decrypt(base64.b64decode(check))) == _CHECKED  # type: ignore[union-attr]
        except StateError:
            return True  # it holds a public key alone: enough to write, and nobody can tell
        except Exception:  # noqa: BLE001 - somebody else's object says in its own way that it cannot
            return False

    def new_chunk(self, chunk_id: int) -> tuple["ChunkCipher", bytes, str | None]:
        """Return the cipher of a new chunk, its salt, and its wrapped key if it has one.

        Args:
            chunk_id: The chunk's id.
        """
        salt = os.urandom(SALT_BYTES)
        if self._master is not None:
            return ChunkCipher(_derived(self._master, salt), chunk_id), salt, None
        key = os.urandom(KEY_BYTES)
        return ChunkCipher(key, chunk_id), salt, base64.b64encode(self._encryption.encrypt(key)).decode()  # type: ignore[union-attr]

    def of_chunk(self, chunk_id: int, salt: bytes, key: str | None) -> "ChunkCipher":
        """Return the cipher of a chunk that is there.

        Args:
            chunk_id: The chunk's id.
            salt: From its header.
            key: Its wrapped key, from the manifest.
        """
        if self._master is not None:
            return ChunkCipher(_derived(self._master, salt), chunk_id)
        if key is None:
            raise CorruptDataError(f"chunk {chunk_id:016x} is encrypted, but the manifest holds no key of it.")
        return ChunkCipher(self._encryption.decrypt(base64.b64decode(key)), chunk_id)  # type: ignore[union-attr]


@final
class ChunkCipher:
    """Encrypts and decrypts the buffers of one chunk.

    Args:
        key: 32 bytes.
        chunk_id: The chunk's id.
    """

    def __init__(self, key: bytes, chunk_id: int) -> None:
        library = require("cryptography.hazmat.primitives.ciphers.aead", extra="crypto", purpose="encryption=", package="cryptography")
        self._aes, self._chunk_id = library.AESGCM(key), chunk_id

    def encrypt(self, raw: Any, block: int, buffer: int, raw_bytes: int, role: int) -> bytes:
        """Return ciphertext and tag."""
        return bytes(self._aes.encrypt(_NONCE.pack(block, buffer, 0), bytes(raw), self._associated(block, buffer, raw_bytes, role)))

    def decrypt(self, stored: Any, block: int, buffer: int, raw_bytes: int, role: int) -> bytes:
        """Return what was encrypted.

        Raises:
            CorruptDataError: The key is another one, or the bytes are not what they were.
        """
        exceptions = require("cryptography.exceptions", extra="crypto", purpose="encryption=", package="cryptography")
        try:
            return bytes(self._aes.decrypt(_NONCE.pack(block, buffer, 0), bytes(stored), self._associated(block, buffer, raw_bytes, role)))
        except exceptions.InvalidTag as error:
            raise CorruptDataError(
                f"chunk {self._chunk_id:016x}, block {block}, buffer {buffer} cannot be decrypted: the key or password is another one, "
                "or the bytes are damaged."
            ) from error

    def _associated(self, block: int, buffer: int, raw_bytes: int, role: int) -> bytes:
        return _ASSOCIATED.pack(self._chunk_id, block, buffer, raw_bytes, role)


def _new_entry(encryption: AesGcm | Encryption) -> dict[str, Any]:
    if isinstance(encryption, AesGcm):
        return {"name": NAME, "salt": base64.b64encode(os.urandom(SALT_BYTES_OF_PASSWORD)).decode()}
    return {"name": EXTERNAL, "algorithm": encryption.algorithm, "level": encryption.level}


def _check_alike(entry: Mapping[str, Any], encryption: AesGcm | Encryption) -> None:
    known = (NAME, None, None) if isinstance(encryption, AesGcm) else (EXTERNAL, encryption.algorithm, encryption.level)
    stored = entry.get("name"), entry.get("algorithm"), entry.get("level")
    if known != stored:
        wanted = "AesGcm(…)" if stored[0] == NAME else f"an Encryption with algorithm={stored[1]!r} and level={stored[2]!r}"
        raise ConfigError(f"encryption={encryption!r} does not fit: the dataset was written with {wanted}.")


def _derived(master: bytes, salt: bytes) -> bytes:
    kdf = require("cryptography.hazmat.primitives.kdf.hkdf", extra="crypto", purpose="encryption=", package="cryptography")
    hashes = require("cryptography.hazmat.primitives.hashes", extra="crypto", purpose="encryption=", package="cryptography")
    return bytes(kdf.HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=_INFO).derive(master))
