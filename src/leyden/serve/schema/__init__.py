"""Classes for what requests and answers often hold: images."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.schema.image import ImageInput as ImageInput
    from leyden.serve.schema.image import ImageOutput as ImageOutput
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"ImageInput": ".image", "ImageOutput": ".image"})
