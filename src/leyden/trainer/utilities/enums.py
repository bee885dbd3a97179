"""Choices at their documented path; plain strings are taken everywhere too."""

from enum import StrEnum


class GradClipAlgorithmType(StrEnum):
    """How gradients are clipped: each `VALUE`, or the `NORM` of all.

    Example:
        >>> GradClipAlgorithmType.supported_type("norm"), GradClipAlgorithmType.supported_types()
        (True, ['value', 'norm'])
    """

    VALUE = "value"
    NORM = "norm"

    @classmethod
    def supported_type(cls, val: str) -> bool:
        """Return whether there is such an algorithm."""
        return val in cls.supported_types()

    @classmethod
    def supported_types(cls) -> list[str]:
        """Return the algorithms' names."""
        return [member.value for member in cls]
