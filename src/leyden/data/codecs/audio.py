"""Audio leaves: sound files; reading gives a decoder that opens itself when first used, `pip install "leyden[media]"`.

Arrays are written as 16-bit WAV by the standard library, so that writing needs no codec and gives the same bytes everywhere.
"""

import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.core.optional import require
from leyden.data.codecs.source import as_array

FULL_SCALE = 32767.0


class AudioDecoder:
    """torchcodec's `AudioDecoder` of a stored file, opened when first used; `["array"]` and `["sampling_rate"]` read it whole.

    Pickles as the file's bytes. Everything else (`get_all_samples`, `metadata`, …) is torchcodec's.

    Args:
        data: A sound file.
        sampling_rate: Resample to this many samples per second.
        num_channels: Mix to so many channels.
        stream_index: Which stream of the file; by default the best one.

    Example:
        >>> AudioDecoder(b"RIFF...").data[:4]
        b'RIFF'
    """

    def __init__(
        self, data: bytes, *, sampling_rate: int | None = None, num_channels: int | None = None, stream_index: int | None = None
    ) -> None:
        self.data = data
        self._options = {"sample_rate": sampling_rate, "num_channels": num_channels, "stream_index": stream_index}
        self._opened: Any = None

    @property
    def decoder(self) -> Any:
        """Torchcodec's decoder."""
        if self._opened is None:
            self._opened = load().AudioDecoder(self.data, **{name: value for name, value in self._options.items() if value is not None})
        return self._opened

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in {"data", "_options", "_opened"}:  # asked for by pickle before they are set
            raise AttributeError(name)
        return getattr(self.decoder, name)

    def __getitem__(self, key: str) -> Any:
        samples = self.decoder.get_all_samples()
        if key == "sampling_rate":
            return samples.sample_rate
        if key == "array":
            values = samples.data.numpy()
            return values[0] if values.shape[0] == 1 else values
        raise KeyError(f"{key!r}: an audio sample has 'array' and 'sampling_rate'.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def encode_array(array: Any, sampling_rate: int | None, num_channels: int | None = None) -> bytes:
    """Return a 16-bit WAV file of samples.

    Args:
        array: (samples,) or (channels, samples); floats from -1 to 1, or int16.
        sampling_rate: Samples per second.
        num_channels: Mix to one channel, or repeat one to so many.

    Raises:
        ConfigError: No sampling rate, another shape or type, or channels that cannot be mixed.
    """
    if sampling_rate is None:
        raise ConfigError("Audio(array=…) needs sampling_rate=…, the samples per second, for example sampling_rate=16000.")
    samples = _mixed(np.atleast_2d(as_array(array)), num_channels)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(int(sampling_rate))
        file.writeframes(np.ascontiguousarray(samples.T).astype("<i2").tobytes())
    return buffer.getvalue()


def encode_pcm(data: bytes, sampling_rate: int | None, num_channels: int | None = None) -> bytes:
    """Return a WAV file of raw 16-bit little-endian samples."""
    return encode_array(np.frombuffer(data, "<i2"), sampling_rate, num_channels)


def decode(data: Any) -> AudioDecoder:
    """Return the decoder of a sound file."""
    return AudioDecoder(bytes(data))


def load() -> Any:
    """Import torchcodec's decoders."""
    return require("torchcodec.decoders", purpose="audio and video leaves", extra="media")


def _mixed(samples: NDArray[Any], num_channels: int | None) -> NDArray[np.int16]:
    if samples.ndim != 2 or samples.shape[0] > samples.shape[1] > 0:
        raise ConfigError(f"Audio(array=…) of shape {samples.shape}: accepted are (samples,) and (channels, samples).")
    if num_channels not in {None, samples.shape[0]}:
        if num_channels != 1 and samples.shape[0] != 1:
            raise ConfigError(f"Audio(array=…) has {samples.shape[0]} channels; accepted is num_channels=1, not {num_channels}.")
        exact = samples if samples.shape[0] == 1 else samples.mean(axis=0, keepdims=True).astype(samples.dtype)
        samples = np.repeat(exact, num_channels or 1, axis=0)
    if samples.dtype == np.int16:
        return samples
    if not np.issubdtype(samples.dtype, np.floating):
        raise ConfigError(f"Audio(array=…) of {samples.dtype}: accepted are floats from -1 to 1 and int16.")
    return np.rint(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)
