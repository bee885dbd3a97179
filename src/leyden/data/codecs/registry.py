"""Which codec reads which leaf type.

`decoder` is asked once when a dataset is opened: a missing library is named there and not in the middle of an epoch.
"""

import importlib
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from leyden.core.errors import ConfigError, listed
from leyden.core.optional import require
from leyden.data.codecs import audio, image, json, mesh, nifti, pdf, tiff, video
from leyden.data.codecs.serializer import Serializer

Output = Literal["torch", "numpy"]
Decode = Callable[[Any], Any]

IMAGES = frozenset({"jpeg", "image", "jpeg_array"})
UNCOMPRESSED = IMAGES | {"audio", "video", "pdf"}  # compressed by their own formats
ENCODED = UNCOMPRESSED | {"pil", "tiff", "mesh", "nifti", "file", "text", "json"}


def decoder(
    leaf_type: str, *, output: Output = "torch", serializers: Mapping[str, Serializer] | None = None, trust: bool = False
) -> Decode:
    """Return the function that makes a leaf's value of its stored bytes; it pickles and may run in several threads.

    Args:
        leaf_type: As the schema says it.
        output: Whether images become torch tensors or numpy arrays.
        serializers: Name to serializer, for `custom:<name>` leaves.
        trust: Whether pickled leaves may be loaded; they run code.

    Raises:
        MissingDependencyError: The leaf's library is not installed.
        ConfigError: Nobody can read this leaf with these arguments.
    """
    if leaf_type in IMAGES:
        return _image_decoder(leaf_type, output)
    if leaf_type in LIBRARIES:
        LIBRARIES[leaf_type]()
    if leaf_type in PLAIN:
        return PLAIN[leaf_type]
    if leaf_type == "pickle":
        return _pickle_decoder(trust=trust)
    if leaf_type.startswith("custom:"):
        return _custom_decoder(leaf_type.removeprefix("custom:"), serializers or {})
    raise ConfigError(f"leaves of type {leaf_type!r} hold no encoded bytes; there are {listed(sorted(ENCODED))}.")


def _text(data: Any) -> str:
    return str(data, "utf-8")


def _nothing(_: Any) -> None:
    """Return `None`: in a column without any value nobody asks."""


def _pillow() -> Any:
    return require("PIL.Image", purpose="decoding images", extra="image")


PLAIN: dict[str, Decode] = {
    "none": _nothing,
    "bytes": bytes,
    "file": bytes,
    "str": _text,
    "text": _text,
    "json": json.decode,
    "pil": image.decode_pixels,
    "tiff": tiff.decode,
    "audio": audio.decode,
    "video": video.decode,
    "mesh": mesh.decode,
    "pdf": pdf.decode,
    "nifti": nifti.decode,
}
LIBRARIES: dict[str, Callable[[], Any]] = {
    "pil": _pillow,
    "tiff": tiff.load,
    "audio": audio.load,
    "video": video.load,
    "mesh": mesh.load,
    "pdf": pdf.load,
    "nifti": nifti.load,
}


def _image_decoder(leaf_type: str, output: Output) -> Decode:
    _pillow()
    if output == "torch":
        require("torch", purpose='images with output="torch"; output="numpy" needs none')
    one = _image_tensor if output == "torch" else image.decode_file
    return partial(_each, one) if leaf_type == "jpeg_array" else one


def _image_tensor(data: Any) -> Any:
    return importlib.import_module("torch").from_numpy(np.array(image.decode_file(data), order="C"))


def _each(one: Decode, data: Any) -> list[Any]:
    return [one(file) for file in image.unpack_files(data)]


def _pickle_decoder(*, trust: bool) -> Decode:
    if not trust:
        raise ConfigError(
            "the dataset holds pickled leaves, and loading them runs the code they name. If you trust who wrote it, pass trust=True; "
            "otherwise leave those leaves out with columns=[…]."
        )
    return pickle.loads


def _custom_decoder(name: str, serializers: Mapping[str, Serializer]) -> Decode:
    if name not in serializers:
        raise ConfigError(
            f"the dataset holds leaves written by the serializer {name!r}. Pass serializers={{{name!r}: …}}; given: {listed(serializers)}."
        )
    return partial(_deserialize, serializers[name])


def _deserialize(serializer: Serializer, data: Any) -> Any:
    return serializer.deserialize(bytes(data))
