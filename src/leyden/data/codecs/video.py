"""Video leaves: files; reading gives a decoder that opens itself when first used, `pip install "leyden[media]"`."""

from typing import Any

from leyden.core.errors import ConfigError
from leyden.core.optional import require
from leyden.data.codecs.source import as_array


class VideoDecoder:
    """torchcodec's `VideoDecoder` of a stored file, opened when first used.

    Pickles as the file's bytes and the options. Everything else (`get_frames_at`, `metadata`, indexing, …) is torchcodec's.

    Args:
        data: A video file.
        stream_index: Which stream of the file; by default the best one.
        dimension_order: `"NCHW"` or `"NHWC"`.
        num_ffmpeg_threads: Threads of one decoder.
        seek_mode: `"approximate"` trusts the file's table, `"exact"` scans it first.
        device: Where frames are decoded.

    Example:
        >>> VideoDecoder(b"....ftyp").data
        b'....ftyp'
    """

    def __init__(
        self,
        data: bytes,
        *,
        stream_index: int | None = None,
        dimension_order: str = "NCHW",
        num_ffmpeg_threads: int = 1,
        seek_mode: str = "approximate",
        device: str = "cpu",
    ) -> None:
        self.data = data
        self._options: dict[str, Any] = {
            "stream_index": stream_index,
            "dimension_order": dimension_order,
            "num_ffmpeg_threads": num_ffmpeg_threads,
            "seek_mode": seek_mode,
            "device": device,
        }
        self._opened: Any = None

    @property
    def decoder(self) -> Any:
        """Torchcodec's decoder."""
        if self._opened is None:
            self._opened = load().VideoDecoder(self.data, **self._options)
        return self._opened

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in {"data", "_options", "_opened"}:  # asked for by pickle before they are set
            raise AttributeError(name)
        return getattr(self.decoder, name)

    def __getitem__(self, key: int | slice) -> Any:
        return self.decoder[key]

    def __len__(self) -> int:
        return len(self.decoder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def encode_array(array: Any, fps: float) -> bytes:
    """Return an MP4 file of frames, uint8, (frames, height, width, 3) or (frames, 3, height, width).

    Raises:
        ConfigError: Another shape or type.
    """
    frames = as_array(array)
    if frames.ndim != 4 or frames.dtype != "uint8":
        raise ConfigError(
            f"Video(array=…) of {frames.dtype} {frames.shape}: frames are uint8, (frames, height, width, 3) or (frames, 3, height, width)."
        )
    if frames.shape[1] not in {1, 3}:
        frames = frames.transpose(0, 3, 1, 2)
    torch = require("torch", purpose="Video(array=…)")
    encoders = require("torchcodec.encoders", purpose="Video(array=…)", extra="media")
    encoded = encoders.VideoEncoder(torch.from_numpy(frames.copy()), frame_rate=float(fps)).to_tensor(format="mp4")
    return encoded.numpy().tobytes()


def decode(data: Any) -> VideoDecoder:
    """Return the decoder of a video file."""
    return VideoDecoder(bytes(data))


def load() -> Any:
    """Import torchcodec's decoders."""
    return require("torchcodec.decoders", purpose="audio and video leaves", extra="media")
