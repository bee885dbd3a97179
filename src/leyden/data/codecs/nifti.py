"""NIfTI leaves: `.nii` or `.nii.gz` files; reading gives a nibabel image, `pip install "leyden[nifti]"`."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from leyden.core.optional import require
from leyden.data.codecs.source import as_array


def encode_volume(array: Any, affine: Any) -> bytes:
    """Return a file of a volume and the 4 by 4 matrix that places it (the identity if `None`)."""
    matrix = np.eye(4) if affine is None else as_array(affine)
    return bytes(load().Nifti1Image(as_array(array), matrix).to_bytes())


def encode_image(image: Any) -> bytes:
    """Return a file of a nibabel image: the one it was loaded from if neither volume nor header was replaced since."""
    original = _untouched_file(image)
    return bytes(image.to_bytes()) if original is None else original


def decode(data: Any) -> Any:
    """Return the nibabel image of a file."""
    content = bytes(data)
    return load().Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def _untouched_file(image: Any) -> bytes | None:
    nibabel = load()
    name = image.get_filename()
    if name is None or not nibabel.is_proxy(image.dataobj) or not Path(name).is_file():
        return None
    return Path(name).read_bytes() if nibabel.load(name).header == image.header else None


def load() -> Any:
    """Import nibabel."""
    return require("nibabel", purpose="NIfTI leaves", extra="nifti")
