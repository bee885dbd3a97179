"""Variables of the environment for a parser: `LEYDEN_FIT__TRAINER__MAX_EPOCHS`, or `PL_…` as files of other origin have it.

jsonargparse knows one prefix. For the time of parsing, what is set under ours stands under that one, and wins.
"""

from collections.abc import Iterator, Set
from contextlib import contextmanager

from leyden.core import settings
from leyden.trainer.cli.class_paths import translated_word

PREFIX, OURS = "PL_", "LEYDEN_"


@contextmanager
def one_prefix(names: Set[str]) -> Iterator[None]:
    """In the block, let the variables of the parser be found under `PL_`.

    Args:
        names: The variables that the parser reads, `PL_…`.
    """
    environ = settings.environment()
    ours = {name: OURS + name.removeprefix(PREFIX) for name in names}
    settings.claim(ours.values())
    settings.claim(names)
    before = {name: environ.get(name) for name in names}
    try:
        for name, own in ours.items():
            value = environ.get(own) or before[name]
            if value:
                environ[name] = translated_word(value)
            elif before[name] is not None:  # empty counts as unset, as everywhere
                del environ[name]
        yield
    finally:
        for name, text in before.items():
            if text is None:
                environ.pop(name, None)
            else:
                environ[name] = text
