"""`/v1/models`: which models there are."""

from collections.abc import Sequence
from typing import Any, final

from leyden.serve.faults import Fault


@final
class Models:
    """The models of a spec.

    Args:
        names: Their ids; the first one answers requests that name none.
        created: When, in seconds since 1970.
        is_strict: Whether requests for others are refused; else any name is good, as one model answers all.

    Example:
        >>> Models(["tiny"], created=0).list()
        {'object': 'list', 'data': [{'id': 'tiny', 'object': 'model', 'created': 0, 'owned_by': 'leyden'}]}
    """

    def __init__(self, names: Sequence[str], created: int, *, is_strict: bool = False) -> None:
        self.names, self._created, self._is_strict = tuple(names), created, is_strict

    def list(self) -> dict[str, Any]:
        """Return all."""
        return {"object": "list", "data": [self._entry(name) for name in self.names]}

    def one(self, name: str) -> dict[str, Any]:
        """Return one.

        Raises:
            Fault: 404: there is none of that name.
        """
        if name not in self.names:
            raise self._unknown(name)
        return self._entry(name)

    def checked(self, name: str) -> str:
        """Return the name of the model that answers a request for one.

        Raises:
            Fault: 404: there is none of that name.
        """
        if not name:
            return self.names[0]
        if self._is_strict and name not in self.names:
            raise self._unknown(name)
        return name

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "leyden"}

    def _unknown(self, name: str) -> Fault:
        return Fault(404, "model_not_found", f"The model {name!r:.200} does not exist. There are: {', '.join(self.names)}.")
