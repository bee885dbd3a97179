"""Rank-zero functions at their documented path."""

from leyden.fabric.rank_zero import rank_zero_deprecation as rank_zero_deprecation
from leyden.fabric.rank_zero import rank_zero_info as rank_zero_info
from leyden.fabric.rank_zero import rank_zero_only as rank_zero_only
from leyden.fabric.rank_zero import rank_zero_warn as rank_zero_warn
