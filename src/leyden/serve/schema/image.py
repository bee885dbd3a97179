"""`ImageInput` and `ImageOutput`: images in JSON, as base64.

```python
class Blur(ls.LitAPI):
    def decode_request(self, request: ImageInput): return request.get_image()
    def predict(self, image):                      return image.filter(ImageFilter.BLUR)
    def encode_response(self, output) -> ImageOutput: return ImageOutput(image=output)
```
"""

import base64
import binascii
import io
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from leyden.core.errors import closest, listed
from leyden.core.optional import require

# A PNG file of one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="


class ImageInput(BaseModel):
    """A request with an image, or several: every text in it is one, as base64. Subclass it for other names.

    Example:
        >>> ImageInput(image_data="aGVsbG8=").image_data
        'aGVsbG8='
    """

    model_config = ConfigDict(extra="allow")

    image_data: str | None = Field(None, description="An image file, as base64.", examples=[PIXEL], json_schema_extra={"format": "base64"})

    @model_validator(mode="after")
    def _check_base64(self) -> "ImageInput":
        for name, text in self:
            if text and isinstance(text, str):
                _bytes(name, text)
        return self

    def get_image(self, key: str | None = None) -> Any:
        """Return an image, as Pillow has them.

        Args:
            key: The field; by default the first one that is not empty.

        Raises:
            ValueError: There is no such field, it is empty, or its bytes are no image: the client's mistake.
        """
        texts = {name: text for name, text in self if text and isinstance(text, str)}
        if key is None:
            key = next(iter(texts), "image_data")
        if key not in texts:
            raise ValueError(f"there is no image {key!r}. There are: {listed(texts) or 'none'}.{closest(key, texts)}")
        image = require("PIL.Image", purpose="ImageInput", extra="image", package="pillow")
        try:
            found = image.open(io.BytesIO(_bytes(key, texts[key])))
            found.load()
        except Exception as error:  # its formats raise many kinds, and each is about the client's bytes
            raise ValueError(f"{key} is no image that can be read: {error}") from error
        return found


class ImageOutput(BaseModel):
    """An answer with an image, which is sent as base64 of a PNG file.

    Args:
        image: Of Pillow.
        more: Further fields, of a subclass.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    image: Any = Field(description="A PNG file, as base64.")

    def __init__(self, image: Any = None, **more: Any) -> None:
        super().__init__(image=image, **more)

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: Any) -> Any:
        if not callable(getattr(image, "save", None)):
            raise ValueError(f"an image of Pillow is due, and {type(image).__name__} came: PIL.Image.fromarray makes one of an array")
        return image

    @field_serializer("image")
    def _as_png(self, image: Any) -> str:
        file = io.BytesIO()
        image.save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode()


def _bytes(name: str, text: str) -> bytes:
    """Return what base64 stands for; before it may stand `data:image/…;base64,`, as browsers write it."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is no base64: {error}") from error
