"""`AttributeDict`: a dictionary whose keys are attributes too."""

from typing import Any

from leyden.core.errors import closest


class AttributeDict(dict[str, Any]):
    """A dictionary that is read and written with dots as well; hyper-parameters are kept in one.

    Example:
        >>> state = AttributeDict(step=1)
        >>> state.step += 1
        >>> state["step"]
        2
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"Missing attribute {name!r}.{closest(name, self)} Keys: {', '.join(map(repr, self))}.") from error

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"Missing attribute {name!r}.{closest(name, self)}")
        del self[name]

    def __repr__(self) -> str:
        width = max((len(str(key)) for key in self), default=0)
        return "\n".join(
            f'"{key}":{" " * (width - len(str(key)) + 1)}{value}' for key, value in sorted(self.items(), key=lambda kv: str(kv[0]))
        )
