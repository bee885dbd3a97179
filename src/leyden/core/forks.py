"""What must begin anew in a forked process: threads did not come along, and locks may be held by threads that did not either."""

import os
import weakref
from typing import Protocol


class Restarts(Protocol):
    """What has threads, locks or connections of one process."""

    def restart(self) -> None:
        """Begin anew, in a process that was forked from the one that this was made in."""
        ...


_owners: "weakref.WeakSet[Restarts]" = weakref.WeakSet()


def restart_after_fork(owner: Restarts) -> None:
    """Let `owner.restart()` be called in every process that is forked from this one, as long as the owner lives.

    Args:
        owner: What must begin anew; it is hashed by identity.
    """
    _owners.add(owner)


def _restart_all() -> None:
    for owner in list(_owners):
        owner.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all)
