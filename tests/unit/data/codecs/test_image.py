"""Images: what is stored as it is, what is re-encoded, and what reading gives back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError
from leyden.data.codecs import image as images
from leyden.data.codecs import jpeg
from leyden.data.codecs.quality import estimated_quality, is_jpeg
from leyden.data.codecs.registry import decoder
from leyden.data.types import Image, Jpeg, JpegArray, Pil, wrap


def photograph(width: int = 32, height: int = 24, mode: str = "RGB") -> Any:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Pillow.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)).convert(mode)


def file_of(image: Any, format_: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 95, 99, 100])
def test_quality_is_read_from_the_tables(quality: int) -> None:
    assert estimated_quality(file_of(photograph(), quality=quality)) == quality


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n", b"\xff\xd8\xff\xdb\x00\x43\x00abc", b"\xff\xd8\xff\xdb\x00\x00"])
def test_what_is_no_whole_jpeg_has_no_quality(data: bytes) -> None:
    assert estimated_quality(data) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_estimate(tail: bytes) -> None:
    estimated_quality(b"\xff\xd8\xff" + tail)


def test_quality_of_wide_tables_and_restart_markers_is_read() -> None:
    data = file_of(photograph(), quality=80)
    assert estimated_quality(data[:2] + b"\xff\xd0\xff" + data[2:]) == 80


def test_a_jpeg_up_to_the_cap_is_stored_as_it_is() -> None:
    data = file_of(photograph(), quality=75)
    assert Jpeg(bytes=data).encode() is data or Jpeg(bytes=data).encode() == data
    assert Jpeg(bytes=data, max_quality=75).encode() == data
    assert estimated_quality(Jpeg(bytes=data, max_quality=60).encode()) == 60


def test_quality_encodes_anew_even_what_is_worse() -> None:
    assert estimated_quality(Jpeg(bytes=file_of(photograph(), quality=40), quality=80).encode()) == 80


def test_jpeg_of_a_png_is_a_jpeg() -> None:
    data = Jpeg(bytes=file_of(photograph(), "PNG")).encode()
    assert is_jpeg(data)
    assert estimated_quality(data) == 95


def test_both_qualities_are_refused() -> None:
    with pytest.raises(ConfigError, match="mutually exclusive"):
        Jpeg(path="x", quality=80, max_quality=90)
    with pytest.raises(ConfigError, match="between 1 and 100"):
        Image(path="x", quality=0)


def test_nothing_and_two_things_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing given"):
        Image().encode()
    with pytest.raises(ConfigError, match="array, image given"):
        Image(array=np.zeros((2, 2, 3), np.uint8), image=photograph()).encode()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.jpg"):
        Jpeg(path="nowhere.jpg").encode()


def test_an_image_file_is_stored_as_it_is_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.bmp"
    photograph().save(path)
    assert Image(path=path).encode() == path.read_bytes()
    assert Image(path=path, format="png").encode()[:4] == b"\x89PNG"
    assert Pillow.open(io.BytesIO(Image(path=path, mode="L").encode())).mode == "L"


def test_pixels_become_png_unless_asked() -> None:
    pixels = np.asarray(photograph())
    assert np.array_equal(decoder("image", output="numpy")(Image(array=pixels).encode()), pixels.transpose(2, 0, 1))
    assert is_jpeg(Image(array=pixels, format="jpg").encode())
    assert Image(image=photograph(mode="CMYK")).encode()[:2] in {b"II", b"MM"}  # PNG has no such mode


@pytest.mark.parametrize("form", ["channels last", "channels first", "floats", "int64", "grey"])
def test_pixels_of_every_form_are_the_same_image(form: str) -> None:
    pixels = np.asarray(photograph())
    array = {
        "channels last": pixels,
        "channels first": pixels.transpose(2, 0, 1),
        "floats": pixels / 255,
        "int64": pixels.astype(np.int64),
        "grey": pixels[:, :, 0],
    }[form]
    read = decoder("image", output="numpy")(Image(array=array).encode())
    assert np.array_equal(read, (pixels if form != "grey" else pixels[:, :, [0, 0, 0]]).transpose(2, 0, 1))


@pytest.mark.parametrize("array", [np.full((2, 2, 3), 300), np.full((2, 2, 3), -0.5), np.zeros(4, np.uint8)])
def test_pixels_that_would_be_changed_are_refused(array: Any) -> None:
    with pytest.raises(ConfigError, match="array of"):
        Image(array=array).encode()


def test_pixels_behind_a_mask_are_refused() -> None:
    for wrapper in (Image, Jpeg, Pil):
        with pytest.raises(ConfigError, match=f"{wrapper.__name__}.* is a masked array"):
            wrapper(array=np.ma.array(np.zeros((2, 2, 3), np.uint8), mask=True)).encode()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="Pillow writes no such format"):
        Image(array=np.zeros((2, 2, 3), np.uint8), format="docx").encode()


def test_a_camera_that_was_turned_is_turned_back() -> None:
    notes = Pillow.Exif()
    notes[0x0112] = 6  # turned by a quarter
    read = decoder("jpeg", output="numpy")(file_of(photograph(32, 24), exif=notes))
    assert read.shape == (3, 32, 24)


def test_a_grey_image_is_read_with_three_channels() -> None:
    read = decoder("jpeg", output="numpy")(file_of(photograph(mode="L")))
    assert read.shape == (3, 24, 32)
    assert read.flags.writeable


def test_tensors_are_read_as_asked() -> None:
    data = file_of(photograph())
    tensor = decoder("jpeg")(memoryview(data))
    assert str(tensor.dtype) == "torch.uint8"
    assert np.array_equal(tensor.numpy(), decoder("jpeg", output="numpy")(data))


def test_an_untouched_jpeg_image_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    photograph().save(path, quality=70)
    lazy, loaded, memory = Pillow.open(path), Pillow.open(path), Pillow.open(io.BytesIO(path.read_bytes()))
    loaded.load()
    for each in (lazy, loaded, memory):
        wrapper = wrap(each)
        assert isinstance(wrapper, Jpeg)
        assert wrapper.encode() == path.read_bytes()
    lazy.close()


def test_a_jpeg_image_changed_in_place_is_not_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    photograph().save(path, quality=70)
    small = Pillow.open(path)
    small.thumbnail((8, 8))
    assert decoder("jpeg", output="numpy")(Jpeg(image=small).encode()).shape == (3, 6, 8)


def test_of_sixteen_bits_the_upper_eight_are_read() -> None:
    wide = np.array([[0, 255, 256], [32768, 40000, 65535]], np.uint16)
    pixels = images.decode_file(file_of(Pillow.fromarray(wide), "PNG"))
    assert pixels.shape == (3, 2, 3)
    assert [plane.tolist() for plane in pixels] == [[[0, 0, 1], [128, 156, 255]]] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_pil_images_come_back_alike(mode: str) -> None:
    picture = photograph(5, 3, mode) if mode != "I;16" else Pillow.fromarray(np.arange(15, dtype=np.uint16).reshape(3, 5))
    read = decoder("pil")(Pil(image=picture).encode())
    assert (read.mode, read.size, read.tobytes()) == (picture.mode, picture.size, picture.tobytes())


def test_a_palette_is_resolved() -> None:
    picture = photograph().quantize(8)
    read = decoder("pil")(Pil(image=picture).encode())
    assert read.tobytes() == picture.convert("RGB").tobytes()


def test_pil_of_files_arrays_and_modes() -> None:
    assert decoder("pil")(Pil(bytes=file_of(photograph(), "PNG")).encode()).tobytes() == photograph().tobytes()
    assert decoder("pil")(Pil(array=np.asarray(photograph()), mode="L").encode()).mode == "L"
    assert isinstance(wrap(photograph()), Pil)


def test_jpeg_arrays_hold_each_file() -> None:
    kept = file_of(photograph(), quality=50)
    values = [kept, photograph(), np.asarray(photograph()), Jpeg(bytes=kept), Image(bytes=kept), Jpeg(bytes=kept, quality=10)]
    files = [bytes(file) for file in images.unpack_files(JpegArray(values, max_quality=60).encode())]
    assert [estimated_quality(file) for file in files] == [50, 60, 60, 50, 50, 10]
    assert files[0] == files[3] == files[4] == kept
    assert [read.shape for read in decoder("jpeg_array", output="numpy")(images.pack_files(files))] == [(3, 24, 32)] * 6
    assert [estimated_quality(bytes(f)) for f in images.unpack_files(JpegArray([kept], quality=20).encode())] == [20]
    assert decoder("jpeg_array", output="numpy")(JpegArray([]).encode()) == []


@pytest.mark.parametrize("data", [b"", b"\x01\0\0\0", b"\x01\0\0\0\x05\0\0\0abc", b"\xff\xff\xff\xff"])
def test_a_damaged_jpeg_array_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptDataError, match="jpeg_array"):
        images.unpack_files(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"mode": "L"}])
def test_the_fast_decoder_gives_pillows_pixels(options: dict[str, Any]) -> None:
    mode = options.pop("mode", "RGB")
    buffer = io.BytesIO()
    photograph(mode=mode).save(buffer, "JPEG", **options)
    fast = jpeg.decode(buffer.getvalue())
    assert fast is not None
    assert np.array_equal(fast, np.asarray(Pillow.open(buffer).convert("RGB")))


def test_what_needs_pillow_is_left_to_it() -> None:
    turned, four = io.BytesIO(), io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    photograph().save(turned, "JPEG", exif=exif)
    photograph().convert("CMYK").save(four, "JPEG")
    for data in (turned.getvalue(), four.getvalue(), b"no file", turned.getvalue()[:200]):
        assert jpeg.decode(data) is None
