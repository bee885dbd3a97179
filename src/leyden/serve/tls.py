"""TLS keys from the environment: PEM as base64, in files that only this user can read while the server runs."""

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leyden.core import settings
from leyden.core.errors import ConfigError

_CERT, _KEY = "LEYDEN_SERVE_TLS_CERT", "LEYDEN_SERVE_TLS_KEY"


@contextlib.contextmanager
def files(environ: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Return the settings of uvicorn that name the files of certificate and key; nothing if there are none.

    Raises:
        ConfigError: Only one is given, or it is no base64.
    """
    given = {name: settings.get(name, environ) for name in (_CERT, _KEY)}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == 2:
        yield {}
        return
    if missing:
        raise ConfigError(f"{missing[0]} is not set, and TLS needs both {_CERT} and {_KEY}.")
    with tempfile.TemporaryDirectory(prefix="leyden-tls-") as folder:
        paths = {name: Path(folder, f"{name.rpartition('_')[2].lower()}.pem") for name in given}
        for name, path in paths.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_decoded(name, str(given[name])))
        yield {"ssl_certfile": str(paths[_CERT]), "ssl_keyfile": str(paths[_KEY])}


def checked(options: Mapping[str, Any]) -> None:
    """Refuse certificates and keys with which no front end could start.

    Args:
        options: Settings of uvicorn.

    Raises:
        ConfigError: A file is not there, one of the two is missing, or they do not go together.
    """
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if options.get(name) and not Path(options[name]).is_file():
            raise ConfigError(f"{name}={str(options[name])!r}: there is no such file.")
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if key and not certificate:
        raise ConfigError(f"ssl_keyfile={str(key)!r} has no effect without ssl_certfile: give both.")
    if certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: options.get("ssl_keyfile_password") or "")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"ssl_certfile={str(certificate)!r} cannot be used: {error}. Give PEM files of a certificate and of its key (ssl_keyfile), "
                "and ssl_keyfile_password if that has one."
            ) from error


def _decoded(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{name} is no base64: {error}. Set it to the PEM file, encoded: base64 -w0 file.pem") from error
