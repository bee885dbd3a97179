"""Warnings that may be wrong, at their documented path."""

from leyden.fabric.utilities.warnings import PossibleUserWarning, disable_possible_user_warnings

__all__ = ["PossibleUserWarning", "disable_possible_user_warnings"]
