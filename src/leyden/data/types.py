"""What a sample may hold beside numbers, strings and arrays: wrappers that say what the bytes at a path are.

A wrapper is what a function given to `optimize` returns: `{"image": Jpeg(path=path), "label": 3}`. It is needed on writing
only; reading gives the decoded value. Those that take `path` or `bytes` store the file as it is; anything else is encoded.
Nothing heavy is imported before `encode`.
"""

import builtins
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from leyden.core.errors import ConfigError
from leyden.core.optional import installed, require
from leyden.data.codecs import array as arrays
from leyden.data.codecs import audio, graph, image, json, mesh, nifti, pdf, tiff, video
from leyden.data.codecs.image import JPEG_QUALITY, Wish
from leyden.data.codecs.source import given, stored_bytes

GRAPH_FIELDS = ("x", "edge_index", "edge_attr", "y", "pos", "batch")
Path = str | os.PathLike[str]


class Wrapper(ABC):
    """A value with the leaf type it is stored as."""

    leaf_type: ClassVar[str]


class Encoded(Wrapper):
    """A wrapper that is stored as bytes."""

    @abstractmethod
    def encode(self) -> bytes:
        """Return the bytes that are stored."""


@dataclass(eq=False)
class Stored(Encoded):
    """A wrapper of a file."""

    path: Path | None = None
    bytes: builtins.bytes | None = None

    def _content(self, **others: Any) -> builtins.bytes | None:
        """Return the file's bytes; `None` if one of `others` was given instead."""
        given(type(self).__name__, path=self.path, bytes=self.bytes, **others)
        return stored_bytes(type(self).__name__, self.path, self.bytes)


@dataclass(eq=False)
class File(Stored):
    """Bytes of no particular kind; read as `bytes`.

    Example:
        >>> File(bytes=b"abc").encode()
        b'abc'
    """

    leaf_type: ClassVar[str] = "file"

    def encode(self) -> builtins.bytes:
        return self._content() or b""


@dataclass(eq=False)
class Text(Stored):
    r"""UTF-8 text; read as `str`.

    Args:
        text: The text itself.

    Example:
        >>> Text(text="né").encode()
        b'n\xc3\xa9'
    """

    text: str | None = None
    leaf_type: ClassVar[str] = "text"

    def encode(self) -> builtins.bytes:
        content = self._content(text=self.text)
        if content is None:
            return (self.text or "").encode()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"Text(path={self.path!r}) is not UTF-8: {error}. Use File(…) for bytes, or pass text=….") from error
        return content


@dataclass(eq=False)
class Audio(Stored):
    """A sound file; read as a lazy torchcodec decoder with `["array"]` and `["sampling_rate"]`.

    Args:
        array: Samples, (samples,) or (channels, samples), floats from -1 to 1 or int16; written as 16-bit WAV.
        sampling_rate: Samples per second, of `array` or of a `.pcm` file.
        num_channels: Mix the array to one channel, or repeat one; for `decoder`, the channels it gives.
        stream_index: For `decoder`: which stream of the file.
    """

    array: Any = None
    sampling_rate: int | None = None
    num_channels: int | None = None
    stream_index: int | None = None
    leaf_type: ClassVar[str] = "audio"

    def encode(self) -> builtins.bytes:
        content = self._content(array=self.array)
        if content is None:
            return audio.encode_array(self.array, self.sampling_rate, self.num_channels)
        if self.path is not None and str(self.path).lower().endswith(".pcm"):
            return audio.encode_pcm(content, self.sampling_rate, self.num_channels)
        return content

    def decoder(self) -> audio.AudioDecoder:
        """Return a decoder with this wrapper's options, for example of bytes read with `decode=False`."""
        return audio.AudioDecoder(
            self.encode(), sampling_rate=self.sampling_rate, num_channels=self.num_channels, stream_index=self.stream_index
        )


@dataclass(eq=False)
class Video(Stored):
    """A video file; read as a lazy torchcodec decoder.

    Args:
        array: Frames, uint8, (frames, height, width, 3) or (frames, 3, height, width); written as MP4.
        fps: Frames per second of `array`.
        stream_index: For `decoder`, as all below: which stream of the file.
        dimension_order: `"NCHW"` or `"NHWC"`.
        num_ffmpeg_threads: Threads of one decoder.
        seek_mode: `"approximate"` or `"exact"`.
        device: Where frames are decoded.
    """

    array: Any = None
    fps: float = 25.0
    stream_index: int | None = None
    dimension_order: str = "NCHW"
    num_ffmpeg_threads: int = 1
    seek_mode: str = "approximate"
    device: str = "cpu"
    leaf_type: ClassVar[str] = "video"

    def encode(self) -> builtins.bytes:
        content = self._content(array=self.array)
        return video.encode_array(self.array, self.fps) if content is None else content

    def decoder(self) -> video.VideoDecoder:
        """Return a decoder with this wrapper's options, for example of bytes read with `decode=False`."""
        return video.VideoDecoder(
            self.encode(),
            stream_index=self.stream_index,
            dimension_order=self.dimension_order,
            num_ffmpeg_threads=self.num_ffmpeg_threads,
            seek_mode=self.seek_mode,
            device=self.device,
        )


@dataclass(eq=False)
class Image(Stored):
    """An image file of any format; read as a uint8 tensor (3, height, width).

    Args:
        array: Pixels, (height, width), (height, width, channels) or (channels, height, width).
        image: A Pillow image.
        mode: Convert to this mode of Pillow's first.
        format: Re-encode as this; arrays and Pillow images are PNG without it.
        quality: Re-encode as JPEG of this quality.
        max_quality: Re-encode as JPEG of this quality what is no JPEG, or one of a higher quality.
    """

    array: Any = None
    image: Any = None
    mode: str | None = None
    format: str | None = None
    quality: int | None = None
    max_quality: int | None = None
    leaf_type: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        self._wish = Wish(mode=self.mode, format=self.format, quality=self.quality, max_quality=self.max_quality)

    def encode(self) -> builtins.bytes:
        return _encode_image(self, self._content(array=self.array, image=self.image), self._wish)


@dataclass(eq=False)
class Jpeg(Stored):
    """A JPEG file; read as a uint8 tensor (3, height, width).

    Args:
        array: Pixels, (height, width), (height, width, channels) or (channels, height, width).
        image: A Pillow image.
        mode: Convert to this mode of Pillow's first.
        quality: Re-encode at this quality.
        max_quality: Re-encode at this quality what is no JPEG, or one of a higher quality; 95 unless `quality` is given.

    Example:
        >>> Jpeg(path="cat.jpg").max_quality, Jpeg(path="cat.jpg", quality=80).max_quality
        (95, None)
    """

    array: Any = None
    image: Any = None
    mode: str | None = None
    quality: int | None = None
    max_quality: int | None = None
    leaf_type: ClassVar[str] = "jpeg"

    def __post_init__(self) -> None:
        if self.max_quality is None and self.quality is None:
            self.max_quality = JPEG_QUALITY
        self._wish = Wish(mode=self.mode, quality=self.quality, max_quality=self.max_quality)

    def encode(self) -> builtins.bytes:
        wish = replace(self._wish, format="JPEG") if self.array is not None or self.image is not None else self._wish
        return _encode_image(self, self._content(array=self.array, image=self.image), wish)


@dataclass(eq=False)
class JpegArray(Encoded):
    """Several JPEG files; read as a list of uint8 tensors (3, height, width).

    Args:
        images: Wrappers (`Jpeg`, `Image`), Pillow images, arrays or the bytes of files.
        quality: As `Jpeg`'s, for images without a quality of their own.
        max_quality: As `Jpeg`'s, for images without a quality of their own.
    """

    images: Sequence[Any] = field(default_factory=list)
    quality: int | None = None
    max_quality: int | None = None
    leaf_type: ClassVar[str] = "jpeg_array"

    def __post_init__(self) -> None:
        if self.max_quality is None and self.quality is None:
            self.max_quality = JPEG_QUALITY
        self._wish = Wish(quality=self.quality, max_quality=self.max_quality)

    def encode(self) -> builtins.bytes:
        return image.pack_files([self._file(each) for each in self.images])

    def _file(self, value: Any) -> builtins.bytes:
        if isinstance(value, (Jpeg, Image)):
            own = value.quality is not None or value.max_quality not in {None, JPEG_QUALITY}
            return value.encode() if own else replace(value, quality=self.quality, max_quality=self.max_quality).encode()
        if isinstance(value, (bytes, bytearray, memoryview)):
            return image.encode_file(bytes(value), self._wish)
        named = {"image": value} if hasattr(value, "getbands") else {"array": value}
        return Jpeg(**named, quality=self.quality, max_quality=self.max_quality).encode()


@dataclass(eq=False)
class Pil(Stored):
    """The pixels of an image, not compressed; read as a Pillow image of the same mode.

    Args:
        array: Pixels, (height, width), (height, width, channels) or (channels, height, width).
        image: A Pillow image.
        mode: Convert to this mode of Pillow's first.
    """

    array: Any = None
    image: Any = None
    mode: str | None = None
    leaf_type: ClassVar[str] = "pil"

    def encode(self) -> builtins.bytes:
        content = self._content(array=self.array, image=self.image)
        if content is not None:
            return image.pack_pixels(image.open_image(content), self.mode)
        return image.pack_pixels(image.picture_of(self.array) if self.image is None else self.image, self.mode)


@dataclass(eq=False)
class Tiff(Stored):
    """A TIFF file; read as an array.

    Args:
        array: What tifffile writes.
        image: A Pillow image.
    """

    array: Any = None
    image: Any = None
    leaf_type: ClassVar[str] = "tiff"

    def encode(self) -> builtins.bytes:
        content = self._content(array=self.array, image=self.image)
        return content if content is not None else tiff.encode(self.image if self.array is None else self.array)


@dataclass(eq=False)
class Mesh(Stored):
    """A GLB, PLY or STL file; read as `trimesh` loads it.

    Args:
        mesh: A mesh or scene of trimesh.
        file_type: What `mesh` is written as: `"glb"`, `"ply"` or `"stl"`.
    """

    mesh: Any = None
    file_type: str = "glb"
    leaf_type: ClassVar[str] = "mesh"

    def encode(self) -> builtins.bytes:
        content = self._content(mesh=self.mesh)
        return mesh.encode(self.mesh, self.file_type) if content is None else content


@dataclass(eq=False)
class Pdf(Stored):
    """A PDF file; read as a pdfplumber document.

    Args:
        pdf: An open document of pdfplumber.
    """

    pdf: Any = None
    leaf_type: ClassVar[str] = "pdf"

    def encode(self) -> builtins.bytes:
        content = self._content(pdf=self.pdf)
        return pdf.encode(self.pdf) if content is None else content


@dataclass(eq=False)
class Nifti(Stored):
    """A NIfTI file, plain or gzipped; read as a nibabel image.

    Args:
        image: A nibabel image.
        array: A volume.
        affine: Where the volume lies, 4 by 4; the identity by default.
    """

    image: Any = None
    array: Any = None
    affine: Any = None
    leaf_type: ClassVar[str] = "nifti"

    def encode(self) -> builtins.bytes:
        content = self._content(image=self.image, array=self.array)
        if content is not None:
            return content
        return nifti.encode_volume(self.array, self.affine) if self.image is None else nifti.encode_image(self.image)


@dataclass(eq=False)
class Tensor(Stored):
    """An array or tensor, or the raw bytes of a one-dimensional one; read as a tensor.

    Args:
        array: A torch tensor or numpy array.
        dtype: Convert `array` to it; needed with `path` and `bytes`.
    """

    array: Any = None
    dtype: Any = None
    leaf_type: ClassVar[str] = "array"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.unwrap().shape)

    def unwrap(self) -> Any:
        """Return the tensor or array itself."""
        content = self._content(array=self.array)
        return arrays.cast(self.array, self.dtype) if content is None else arrays.of_raw(content, self.dtype)

    def encode(self) -> builtins.bytes:
        """Return the value as a `.npy` file."""
        value = self.unwrap()
        return arrays.to_npy(value.numpy(force=True) if hasattr(value, "detach") else value)


@dataclass(eq=False)
class Json(Encoded):
    """Any JSON value as one leaf, also where it would otherwise become a node or a list.

    Example:
        >>> Json({"boxes": [[1, 2], []]}).encode()
        b'{"boxes":[[1,2],[]]}'
    """

    value: Any
    leaf_type: ClassVar[str] = "json"

    def encode(self) -> builtins.bytes:
        return json.encode(self.value)


@dataclass(eq=False)
class Graph(Wrapper):
    """A graph as arrays; read as PyG's `Data` or `HeteroData` if PyG is installed, else as a `Graph`.

    Args:
        x: Node features.
        edge_index: (2, edges).
        edge_attr: Edge features.
        y: Labels.
        pos: Positions.
        batch: Which graph each node belongs to.
        data: A graph of PyG, or a dict of fields; the fields above override its own.
    """

    x: Any = None
    edge_index: Any = None
    edge_attr: Any = None
    y: Any = None
    pos: Any = None
    batch: Any = None
    data: Any = None
    leaf_type: ClassVar[str] = "graph"

    def fields(self) -> dict[Any, Any]:
        """Return all fields, as PyG's `to_dict` would."""
        if self.data is not None and not isinstance(self.data, Mapping) and not graph.is_pyg(self.data):
            raise ConfigError(f"Graph(data={self.data!r:.60}): accepted are PyG's Data and HeteroData, and a dict of fields.")
        known = {} if self.data is None else self.data if isinstance(self.data, Mapping) else self.data.to_dict()
        return {**known, **{name: getattr(self, name) for name in GRAPH_FIELDS if getattr(self, name) is not None}}

    def parts(self) -> tuple[dict[str, Any], bool]:
        """Return the tree that is stored, and whether the graph is heterogeneous; what is no array is one JSON value."""
        tree, hetero = graph.parts_of(self.fields())
        return {**tree, graph.REST: Json(tree[graph.REST])}, hetero

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any], *, hetero: bool) -> "Graph":
        """Return the graph whose `parts` were stored."""
        rest = parts.get(graph.REST)
        fields = graph.fields_of({**parts, graph.REST: rest.value if isinstance(rest, Json) else rest}, hetero=hetero)
        known = {name: fields.pop(name) for name in GRAPH_FIELDS if name in fields}
        return cls(**known, data=fields or None)

    @staticmethod
    def decode(parts: Mapping[str, Any], *, hetero: bool) -> Any:
        """Return what reading gives: PyG's `Data` or `HeteroData` if PyG is installed, else the `Graph`."""
        read = Graph.of_parts(parts, hetero=hetero)
        return read.to_pyg() if installed("torch_geometric") else read

    def to_pyg(self) -> Any:
        """Return PyG's `Data`, or `HeteroData` if node and edge types have fields of their own."""
        data = require("torch_geometric.data", purpose="Graph.to_pyg", package="torch_geometric")
        hetero = self.parts()[1]
        return (data.HeteroData if hetero else data.Data).from_dict(self.fields())


def wrap(value: Any) -> Wrapper | None:
    """Return the wrapper of an object of another library: Pillow's images and PyG's graphs; `None` for anything else.

    Example:
        >>> wrap("a string") is None
        True
    """
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        return Jpeg(image=value) if getattr(value, "format", None) == "JPEG" else Pil(image=value)
    return Graph(data=value) if graph.is_pyg(value) else None


def _encode_image(owner: Image | Jpeg, content: bytes | None, wish: Wish) -> bytes:
    if content is not None:
        return image.encode_file(content, wish)
    return image.encode_pixels(owner.array, wish) if owner.image is None else image.encode_picture(owner.image, wish)
