"""Looking for the largest batch size that fits: which size comes next, and which was the largest. No training happens here."""

from typing import Literal

from leyden.core.errors import ConfigError

SearchMode = Literal["power", "binsearch"]
MODES = ("power", "binsearch")


class BatchSizeSearch:
    """A search; ask it for `size`, try that, and tell it how that went, until `size` is `None`.

    `power` doubles until a size fails; `binsearch` then bisects between the largest that succeeded and the smallest that
    failed. Where the first size fails, both go down. What is found has always been tried, save for the margin taken off.

    Args:
        mode: `power` or `binsearch`.
        init_val: The first size.
        max_trials: How often the size may be raised.
        max_val: No size above.
        margin: The fraction taken off what `binsearch` finds.

    Raises:
        ConfigError: An unknown mode, or a number out of range.

    Example:
        >>> search = BatchSizeSearch("binsearch", init_val=2, margin=0.0)
        >>> while search.size is not None:
        ...     search.succeeded() if search.size <= 11 else search.failed()
        >>> search.found
        11
    """

    def __init__(
        self, mode: str = "power", *, init_val: int = 2, max_trials: int = 25, max_val: int | None = 8192, margin: float = 0.05
    ) -> None:
        mode = mode.lower()
        if mode not in MODES:
            raise ConfigError(f"`mode` should be either of {MODES}, not {mode!r}.")
        if init_val < 1 or max_trials < 0 or (max_val is not None and max_val < 1):
            raise ConfigError(f"init_val={init_val}, max_trials={max_trials}, max_val={max_val}: sizes are at least 1, trials at least 0.")
        if not 0 <= margin < 1:
            raise ConfigError(f"margin={margin} should be from 0 to below 1: it is the fraction taken off what was found, such as 0.05.")
        self.mode = mode
        self.size: int | None = init_val if max_val is None else min(init_val, max_val)
        self.best = 0
        self._failed: int | None = None
        self._raises_left = max_trials
        self._max_val = max_val
        self._margin = margin

    @property
    def found(self) -> int | None:
        """The size to use, with the margin taken off; `None` where none succeeded."""
        if not self.best:
            return None
        return max(1, int(self.best * (1 - self._margin))) if self.mode == "binsearch" else self.best

    def succeeded(self, num_samples: int | None = None) -> None:
        """Say that `size` fitted.

        Args:
            num_samples: How many samples there are: no batch can be larger.
        """
        assert self.size is not None  # noqa: S101 - what was tried
        self.best = self.size
        higher = self.best * 2
        if self._failed is not None:
            higher = (self.best + self._failed) // 2 if self.mode == "binsearch" else self.best
        for most in (self._max_val, num_samples):
            higher = higher if most is None else min(higher, most)
        if higher <= self.best or not self._raises_left:
            self.size = None
            return
        self._raises_left -= 1
        self.size = higher

    def failed(self) -> None:
        """Say that `size` did not fit."""
        assert self.size is not None  # noqa: S101 - what was tried
        self._failed = self.size
        lower = (self.best + self._failed) // 2 if self.mode == "binsearch" else self.best or self._failed // 2
        self.size = lower if lower > self.best else None
