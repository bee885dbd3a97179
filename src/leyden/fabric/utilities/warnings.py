"""Warnings that may be wrong, and how to silence them, at their documented path."""

import warnings


class PossibleUserWarning(UserWarning):
    """Something that is often, but not always, a mistake."""


def disable_possible_user_warnings(module: str = "") -> None:
    """Ignore warnings of the category `PossibleUserWarning`.

    Args:
        module: A regular expression for the modules whose warnings are ignored; all by default.

    Example:
        >>> with warnings.catch_warnings():
        ...     disable_possible_user_warnings()
    """
    warnings.filterwarnings("ignore", module=module, category=PossibleUserWarning)
