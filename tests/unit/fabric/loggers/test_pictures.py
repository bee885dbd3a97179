import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.fabric.loggers.pictures import histogram_of, pixels_of, png


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_comes_back_pixel_by_pixel(channels: int) -> None:
    image_module = pytest.importorskip("PIL.Image")
    pixels = torch.randint(0, 256, (5, 7, channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with image_module.open(io.BytesIO(png(pixels))) as image:
        assert image.size == (7, 5)
        assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        assert image.tobytes() == pixels.numpy().tobytes()


def test_pictures_of_any_layout_are_the_same_pixels() -> None:
    picture = torch.rand(3, 4, 5)
    expected = pixels_of(picture, "CHW")
    assert torch.equal(pixels_of(picture.permute(1, 2, 0), "HWC"), expected)
    assert torch.equal(pixels_of(picture.permute(2, 1, 0), "WHC"), expected)
    assert torch.equal(pixels_of(picture[0], "HW"), expected[..., :1])
    assert torch.equal(pixels_of(picture.numpy(), "chw"), expected)
    assert torch.equal(pixels_of((picture * 255).to(torch.int64), "CHW"), expected)


def test_floats_are_clamped() -> None:
    assert pixels_of(torch.tensor([[-1.0, 0.0, 1.0, 2.0, math.nan]]), "HW").flatten().tolist() == [0, 0, 255, 255, 0]


@pytest.mark.parametrize(("shape", "formats"), [((3, 4), "CHW"), ((5, 4, 4), "CHW"), ((3, 4, 4), "CHX"), ((1, 3, 4, 4), "NCHW")])
def test_a_picture_that_does_not_fit_is_refused(shape: tuple[int, ...], formats: str) -> None:
    with pytest.raises(ConfigError, match="picture"):
        pixels_of(torch.zeros(shape), formats)


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    bins=st.sampled_from(["tensorflow", 1, 7, [-1.0, 0.0, 1.0]]),
    max_bins=st.none() | st.integers(1, 5),
)
def test_a_histogram_counts_every_value_once(values: list[float], bins: object, max_bins: int | None) -> None:
    histogram = histogram_of(torch.tensor(values, dtype=torch.float64), bins, max_bins)
    assert sum(histogram.counts) == len(values)
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))
    assert list(histogram.limits) == sorted(histogram.limits)
    assert len(histogram.limits) == len(histogram.counts)
    assert max_bins is None or len(histogram.counts) <= max_bins


def test_values_lie_in_their_bucket() -> None:
    histogram = histogram_of(torch.tensor([-1.0, 0.5, 0.5, 3.0]), bins=[0.0, 1.0, 2.0, 3.0])
    assert list(zip(histogram.limits, histogram.counts, strict=True)) == [(0.0, 1), (1.0, 2), (2.0, 0), (3.0, 1)]


def test_what_is_not_finite_is_not_counted() -> None:
    assert sum(histogram_of(torch.tensor([1.0, math.nan, math.inf])).counts) == 1
    with pytest.raises(ConfigError, match="at least one finite value"):
        histogram_of(torch.tensor([math.nan]))


@pytest.mark.parametrize("bins", ["doane", 0])
def test_unknown_bins_are_refused(bins: object) -> None:
    with pytest.raises(ConfigError, match="bins="):
        histogram_of(torch.ones(3), bins)
