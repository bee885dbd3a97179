"""JPEG files decoded by libjpeg-turbo alone: half the time of Pillow, which goes through the same library, and the same pixels."""

import functools
import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.data.codecs.quality import segments_of

_EXIF, _ADOBE = 0xE1, 0xEE
_CMYK = 4  # components
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive, all of eight bits


def decode(data: Any) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG file as RGB, uint8, (height, width, 3); `None` if Pillow has to.

    That is so for other formats, files that the camera's note turns, four colours, and damage, which Pillow tells of.
    """
    library = _library()
    if library is None or not _is_simple(data):
        return None
    try:
        pixels: NDArray[np.uint8] = library.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None
    return pixels


@functools.cache
def _library() -> Any:
    return importlib.import_module("simplejpeg") if importlib.util.find_spec("simplejpeg") else None


def _is_simple(data: Any) -> bool:
    is_frame = False
    for marker, start, _ in segments_of(data):
        if marker in {_EXIF, _ADOBE}:
            return False
        if marker in _FRAMES:
            is_frame = data[start + 5] < _CMYK
    return is_frame
