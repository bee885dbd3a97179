"""`Serializer`: kinds of values that the user brings the codec for."""

from abc import ABC, abstractmethod
from typing import Any


class Serializer(ABC):
    """How values of a kind of your own become bytes and come back: `serializers={"name": MySerializer()}`.

    Example:
        >>> class Complex(Serializer):
        ...     def serialize(self, data):
        ...         return repr(data).encode(), None
        ...
        ...     def deserialize(self, data):
        ...         return complex(data.decode())
        ...
        ...     def can_serialize(self, data):
        ...         return isinstance(data, complex)
        >>> Complex().deserialize(Complex().serialize(1 + 2j)[0])
        (1+2j)
    """

    @abstractmethod
    def serialize(self, data: Any) -> tuple[bytes, str | None]:
        """Return the bytes, and optionally a note that `setup` gets on reading."""

    @abstractmethod
    def deserialize(self, data: bytes) -> Any:
        """Return the value."""

    @abstractmethod
    def can_serialize(self, data: Any) -> bool:
        """Return whether this value is of the kind."""

    def setup(self, metadata: Any) -> None:  # noqa: B027 - most kinds need no note
        """Take the note of `serialize`; called once before the first `deserialize`."""
