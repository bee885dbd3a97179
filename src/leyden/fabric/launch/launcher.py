"""`Launcher`: how the other ranks of this node come to be."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import Store


class Launcher(ABC):
    """Starts the other local ranks, watches them, and ends them all when one fails.

    `store` is the rendezvous that already listens when the children start (no find-then-bind race); it is `None` where
    processes were started from outside, or in a process that is itself one of the children and connects by address.
    """

    store: "Store | None" = None

    @property
    @abstractmethod
    def is_interactive_compatible(self) -> bool:
        """Whether this works in a notebook or REPL."""

    @abstractmethod
    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `function(*args, **kwargs)` in every local rank and return what rank 0 returned.

        The script launcher starts the same script again for the other ranks and calls `function` in this process.

        Raises:
            RankFailedError: Another rank failed; carries its traceback, rank and exit code.
        """

    def explain(self, error: BaseException) -> BaseException:
        """Return the `RankFailedError` that `error` is the consequence of (a peer broke off), else `error` itself."""
        return error

    def close(self) -> None:  # noqa: B027 - a launcher without children has nothing to close
        """Wait for the children that are left, end those that do not go, and stop watching."""
