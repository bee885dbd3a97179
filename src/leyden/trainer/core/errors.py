"""Errors that are also the built-in type which users' code catches at these places."""

from leyden.core.errors import NotFoundError, StateError


class NotAttachedError(StateError, AttributeError):
    """Something of a run was asked for, and there is no run."""

    code = "trainer.not_attached"


class CheckpointNotFoundError(NotFoundError, FileNotFoundError):
    """There is no checkpoint at the path."""

    code = "checkpoint.not_found"
