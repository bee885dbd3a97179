"""Images: what the wrappers `Image`, `Jpeg`, `JpegArray` and `Pil` store, and what reading gives back.

Files are stored as they are unless a quality, mode or format asks for another. Reading `jpeg` and `image` leaves gives
RGB, uint8, (3, height, width), turned as the camera's EXIF note says (Pillow decodes; `pip install "leyden[image]"`).
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import require
from leyden.data.codecs import jpeg
from leyden.data.codecs.quality import estimated_quality, is_jpeg
from leyden.data.codecs.source import as_array

JPEG_QUALITY = 95  # of pixels that come without a wish
PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
CHANNELS = frozenset({1, 3, 4})


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked of an encoded image.

    Args:
        mode: Pillow's mode to convert to.
        format: `"png"`, `"jpeg"`, `"webp"`, …
        quality: Re-encode as JPEG of this quality.
        max_quality: Re-encode as JPEG of this quality what is no JPEG, or one of a higher quality.
    """

    mode: str | None = None
    format: str | None = None
    quality: int | None = None
    max_quality: int | None = None

    def __post_init__(self) -> None:
        for name in ("quality", "max_quality"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 100:
                raise ConfigError(f"{name}={value!r}: a JPEG quality lies between 1 and 100, for example {name}=90.")
        if self.quality is not None and self.max_quality is not None:
            raise ConfigError(
                f"quality={self.quality} and max_quality={self.max_quality} are mutually exclusive: quality re-encodes every image, "
                "max_quality only those above it. Pass one of them."
            )

    @property
    def is_none(self) -> bool:
        """Whether nothing was asked for."""
        return self.mode is None and self.format is None and self.quality is None and self.max_quality is None

    def keeps(self, data: bytes) -> bool:
        """Return whether the file can be stored as it is."""
        if self.is_none:
            return True
        if self.mode is not None or self.quality is not None or self.max_quality is None or not is_jpeg(data):
            return False
        quality = estimated_quality(data)
        return quality is None or quality <= self.max_quality


def encode_file(data: bytes, wish: Wish) -> bytes:
    """Return the file itself, or re-encoded where the wish asks for it."""
    if wish.keeps(data):
        return data
    image = open_image(data)
    return _save(image, wish, default=image.format or "PNG")


def encode_picture(image: Any, wish: Wish) -> bytes:
    """Return a file of a Pillow image: the one it was read from if that is untouched and the wish allows it."""
    original = untouched_file(image)
    if original is not None and is_jpeg(original) and (wish.format or "JPEG").upper() in {"JPEG", "JPG"} and wish.keeps(original):
        return original
    return _save(image, wish, default="PNG")


def encode_pixels(array: Any, wish: Wish) -> bytes:
    """Return a file of pixels: (height, width), (height, width, channels) or (channels, height, width)."""
    return _save(picture_of(array), wish, default="PNG")


def pack_pixels(image: Any, mode: str | None) -> bytes:
    """Return the `pil` leaf of a Pillow image: u32 width, height, length of the mode's name, the name, the pixels."""
    if mode is not None and image.mode != mode:
        image = image.convert(mode)
    elif image.mode in {"P", "PA"}:  # the layout has no place for a palette
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    name = image.mode.encode()
    return struct.pack("<3I", *image.size, len(name)) + name + image.tobytes()


def pack_files(files: Sequence[bytes]) -> bytes:
    """Return the `jpeg_array` leaf: u32 count, u32 sizes, the files."""
    return struct.pack(f"<{len(files) + 1}I", len(files), *map(len, files)) + b"".join(files)


def unpack_files(data: Any) -> list[memoryview]:
    """Return the files of a `jpeg_array` leaf.

    Raises:
        CorruptDataError: It is shorter or longer than its own table says.
    """
    view = memoryview(data)
    count = struct.unpack_from("<I", view)[0] if len(view) >= 4 else -1
    sizes = struct.unpack_from(f"<{count}I", view, 4) if 0 <= count <= len(view) // 4 - 1 else ()
    if count < 0 or len(sizes) != count or 4 * count + 4 + sum(sizes) != len(view):
        raise CorruptDataError(f"a jpeg_array leaf of {len(view)} bytes does not hold what its table says")
    ends = 4 * count + 4 + np.cumsum([0, *sizes])
    return [view[ends[i] : ends[i + 1]] for i in range(count)]


def decode_pixels(data: Any) -> Any:
    """Return the Pillow image of a `pil` leaf."""
    view = memoryview(data)
    width, height, length = struct.unpack_from("<3I", view)
    mode = bytes(view[12 : 12 + length]).decode()
    return _pillow().frombytes(mode, (width, height), bytes(view[12 + length :]))


def decode_file(data: Any) -> NDArray[np.uint8]:
    """Return the pixels of an image file as RGB, uint8, (3, height, width); a view that is put in order where it is copied to.

    Of 16 bits the upper eight are kept.
    """
    pixels = jpeg.decode(data)
    return (_decoded_by_pillow(data) if pixels is None else pixels).transpose(2, 0, 1)


def _decoded_by_pillow(data: Any) -> NDArray[np.uint8]:
    image = open_image(data)
    if image.format == "JPEG" and "exif" in image.info:
        image = require("PIL.ImageOps", purpose="decoding images", extra="image").exif_transpose(image)
    if image.mode.startswith("I;16"):  # which Pillow would cut at 255
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def open_image(data: Any) -> Any:
    """Open an image file; its pixels are decoded when they are asked for."""
    return _pillow().open(io.BytesIO(data))


def untouched_file(image: Any) -> bytes | None:
    """Return the file a Pillow image was opened from, if its pixels are still the file's; else `None`."""
    if getattr(image, "format", None) is None:
        return None  # made by an operation, not by `open`
    data = _file_behind(image)
    if data is None or image.tile:  # tiles are what is still to be read: nobody can have changed the pixels
        return data
    again = open_image(data)
    same = again.size == image.size and again.mode == image.mode and again.tobytes() == image.tobytes()
    return data if same else None  # `thumbnail`, `paste` and drawing work in place


def picture_of(array: Any) -> Any:
    """Return a Pillow image of pixels."""
    pixels = as_array(array)
    if pixels.ndim == 3 and pixels.shape[0] in CHANNELS and pixels.shape[2] not in CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in {2, 3}:
        raise ConfigError(f"array of shape {pixels.shape}: an image is (height, width) or that with channels last or first.")
    return _pillow().fromarray(np.ascontiguousarray(_eight_bits(pixels)))


def _eight_bits(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels of a type that Pillow takes, without changing a value: uint8, or two dimensions of wider ones."""
    if pixels.dtype == np.uint8 or pixels.size == 0 or (pixels.ndim == 2 and pixels.dtype in {np.dtype(np.uint16), np.dtype(bool)}):
        return pixels
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(pixels * 255).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating) and low >= 0 and high <= 255:
        return pixels.astype(np.uint8)
    raise ConfigError(
        f"array of {pixels.dtype} from {low} to {high}: pixels are uint8, integers from 0 to 255 or floats from 0 to 1. "
        "Scale them, or return the array itself to keep it as it is."
    )


def _save(image: Any, wish: Wish, *, default: str) -> bytes:
    quality = wish.quality if wish.quality is not None else wish.max_quality
    format_ = (wish.format or ("JPEG" if quality is not None else default)).upper().replace("JPG", "JPEG")
    if wish.mode is not None and image.mode != wish.mode:
        image = image.convert(wish.mode)
    if format_ == "JPEG" and image.mode not in {"RGB", "L", "CMYK"}:
        image = image.convert("RGB")
    if format_ == "PNG" and image.mode not in PNG_MODES:
        format_ = "TIFF"
    options = {"quality": quality or JPEG_QUALITY} if format_ in {"JPEG", "WEBP"} else {}
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=format_, **options)
    except KeyError as error:
        raise ConfigError(f"format={wish.format!r}: Pillow writes no such format. Use 'png', 'jpeg' or 'webp'.") from error
    return buffer.getvalue()


def _file_behind(image: Any) -> bytes | None:
    stream, name = getattr(image, "fp", None), getattr(image, "filename", "")
    try:
        if stream is not None and image.tile:
            place = stream.tell()
            stream.seek(0)
            data = stream.read()
            stream.seek(place)
            return data
        if name:
            with open(name, "rb") as file:  # noqa: PTH123 - Pillow's own name of the file, which may be bytes
                return file.read()
    except (OSError, ValueError):  # closed, or moved since
        return None
    return None


def _pillow() -> Any:
    return require("PIL.Image", purpose="encoding and decoding images", extra="image")
