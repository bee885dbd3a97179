"""Images in JSON: in as base64 of any file, out as base64 of a PNG."""

import base64
import io
from typing import Any

import pydantic
import pytest

from leyden.serve.codec import encode_value, read_json
from leyden.serve.faults import Fault
from leyden.serve.schema import ImageInput, ImageOutput
from leyden.serve.typed import validated

image = pytest.importorskip("PIL.Image")


def as_base64(color: str = "red", kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.new("RGB", (2, 3), color).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


class Pair(ImageInput):
    mask: str | None = None


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_an_image_comes_in(kind: str) -> None:
    found = ImageInput(image_data=as_base64(kind=kind)).get_image()
    assert (found.size, found.getpixel((0, 0))) == ((2, 3), (255, 0, 0))


def test_browsers_write_where_it_comes_from() -> None:
    assert ImageInput(image_data=f"data:image/png;base64,{as_base64()}").get_image().size == (2, 3)


def test_several_images_have_names() -> None:
    pair = Pair(image_data=as_base64(), mask=as_base64("blue"))
    assert pair.get_image("mask").getpixel((0, 0)) == (0, 0, 255)
    assert pair.get_image().getpixel((0, 0)) == (255, 0, 0)
    assert Pair(mask=as_base64("blue")).get_image().getpixel((0, 0)) == (0, 0, 255)
    assert ImageInput.model_validate({"front": as_base64()}).get_image("front").size == (2, 3)


@pytest.mark.parametrize("fields", [{"image_data": "?!"}, {"image_data": "abc"}, {"image_data": "", "front": "ü"}, {"image_data": 5}])
def test_what_is_no_base64_is_refused_with_the_field(fields: dict[str, Any]) -> None:
    with pytest.raises(Fault) as caught:
        validated(fields, ImageInput)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        (ImageInput(), None, "there is no image 'image_data'. There are: none"),
        (Pair(mask=as_base64()), "mesk", "There are: 'mask'.* Did you mean 'mask'"),
        (ImageInput(image_data="aGVsbG8="), None, "image_data is no image that can be read"),
        (ImageInput(image_data=as_base64()[:60]), None, "image_data is no image that can be read"),
    ],
)
def test_what_is_no_image_is_the_clients_mistake(given: ImageInput, key: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given.get_image(key)


def test_an_image_goes_out_as_a_png() -> None:
    body, kind = encode_value(ImageOutput(image.new("RGB", (2, 3), "red")))
    assert kind == "application/json"
    found = image.open(io.BytesIO(base64.b64decode(read_json(body)["image"])))
    assert (found.format, found.size, found.getpixel((0, 0))) == ("PNG", (2, 3), (255, 0, 0))


def test_only_images_go_out() -> None:
    with pytest.raises(pydantic.ValidationError, match="an image of Pillow is due, and list came"):
        ImageOutput(image=[[1, 2]])


def test_both_have_a_schema() -> None:
    assert ImageInput.model_json_schema()["properties"]["image_data"]["format"] == "base64"
    assert ImageOutput.model_json_schema(mode="serialization")["properties"]["image"]["type"] == "string"
