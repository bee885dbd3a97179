"""Sound and video: what is written, and that decoders open when used and travel as bytes."""

import io
import pickle
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.core.errors import ConfigError
from leyden.core.optional import installed
from leyden.data.codecs.audio import AudioDecoder
from leyden.data.codecs.registry import decoder
from leyden.data.codecs.video import VideoDecoder
from leyden.data.types import Audio, Video

needs_torchcodec = pytest.mark.skipif(not installed("torchcodec"), reason="torchcodec is not installed")


def samples_of(data: bytes) -> tuple[Any, int]:
    with wave.open(io.BytesIO(data)) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels()).T
        return frames, file.getframerate()


def test_samples_become_a_wav_file() -> None:
    stereo = np.array([[0, 0.5, 1.0, -1.0], [0, 0, 0, 2.0]])
    frames, rate = samples_of(Audio(array=stereo, sampling_rate=8000).encode())
    assert rate == 8000
    assert frames.tolist() == [[0, 16384, 32767, -32767], [0, 0, 0, 32767]]


def test_16_bit_samples_are_exact() -> None:
    mono = np.array([-32768, 32767, 5], np.int16)
    assert samples_of(Audio(array=mono, sampling_rate=16000).encode())[0].tolist() == [mono.tolist()]
    assert samples_of(Audio(bytes=mono.tobytes(), path="x.pcm", sampling_rate=16000).encode())[0].tolist() == [mono.tolist()]


def test_channels_are_mixed_and_repeated() -> None:
    stereo = np.array([[100, 200], [300, 400]], np.int16)
    assert samples_of(Audio(array=stereo, sampling_rate=1, num_channels=1).encode())[0].tolist() == [[200, 300]]
    assert samples_of(Audio(array=stereo[0], sampling_rate=1, num_channels=2).encode())[0].tolist() == [[100, 200]] * 2


@pytest.mark.parametrize(
    ("audio", "match"),
    [
        (Audio(array=np.zeros(3)), "sampling_rate=16000"),
        (Audio(array=np.zeros((3, 2)), sampling_rate=1), r"\(channels, samples\)"),
        (Audio(array=np.zeros(3, np.int32), sampling_rate=1), "floats from -1 to 1"),
        (Audio(array=np.zeros((2, 9)), sampling_rate=1, num_channels=3), "num_channels=1"),
    ],
)
def test_samples_that_cannot_be_written_are_refused(audio: Audio, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        audio.encode()


def test_sound_and_video_files_are_stored_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(b"ID3...")
    assert Audio(path=path).encode() == b"ID3..."
    assert Video(bytes=b"....ftyp").encode() == b"....ftyp"


def test_decoders_travel_as_bytes() -> None:
    for made in (AudioDecoder(b"abc", sampling_rate=5), VideoDecoder(b"abc", device="cuda"), Video(bytes=b"abc", device="cuda").decoder()):
        again = pickle.loads(pickle.dumps(made))
        assert again.data == b"abc"
        assert again._options == made._options
    assert Audio(bytes=b"abc", num_channels=1).decoder()._options["num_channels"] == 1


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="frames are uint8"):
        Video(array=np.zeros((2, 3, 4), np.uint8)).encode()


@needs_torchcodec
def test_sound_is_decoded_when_asked_for() -> None:
    wave_form = np.sin(np.linspace(0, 100, 4000)).astype(np.float32) / 2
    read = decoder("audio")(Audio(array=wave_form, sampling_rate=8000).encode())
    assert read["sampling_rate"] == 8000
    assert np.abs(read["array"] - wave_form).max() < 1e-4
    assert read.metadata.num_channels == 1


@needs_torchcodec
def test_video_is_decoded_when_asked_for() -> None:
    frames = np.zeros((10, 3, 64, 64), np.uint8)
    read = decoder("video")(Video(array=frames, fps=10.0).encode())
    assert len(read) == 10
    assert read[0].shape == (3, 64, 64)
