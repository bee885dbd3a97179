"""The arguments that `optimize` and `map` share: what is accepted, what is refused with the way out, what has no effect."""

import itertools
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Final, final

from leyden.core import settings
from leyden.core.arguments import flag, whole
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.data.config import Dir, parse_bytes, place_of
from leyden.data.format.cipher import AesGcm
from leyden.data.write.progress import checked_progress

DEV_RUN_INPUTS = 10
TOLD_INPUTS, TOLD_CHARACTERS = 3, 200  # of what a plan says of its inputs
_SETS, _MANY = (set, frozenset), (Iterable, Sized)
_TEMPLATE = re.compile(r"\{(%[^}]*)\}")
_LAUNCH = (
    "start the same script several times instead: `leyden run --nodes 4 script.py`, torchrun or srun; each process finds its place "
    'by itself (engine="ranks").'
)


@final
class AllDone:
    """Ends a queue of inputs."""

    def __repr__(self) -> str:
        return "ALL_DONE"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllDone)  # a queue between processes gives a copy

    def __hash__(self) -> int:
        return 0


ALL_DONE: Final = AllDone()


def collect_inputs(inputs: Any, *, reader: Any, batch_size: int | None, fast_dev_run: bool | int) -> Sequence[Any]:
    """Return all inputs as a sequence.

    Raises:
        ConfigError: There are none, or a size is not accepted.
    """
    found = listed_inputs(inputs)
    if reader is not None:
        found = listed_inputs(reader.remap_items(found, 1))
    if batch_size is not None:
        size = whole("batch_size", batch_size, 1)
        found = [found[start : start + size] for start in range(0, len(found), size)]
    return found[: dev_inputs(fast_dev_run)]


def listed_inputs(inputs: Iterable[Any]) -> Sequence[Any]:
    """Return inputs as a sequence.

    Raises:
        ConfigError: There are none, or it is one value.
    """
    if isinstance(inputs, str | bytes):
        raise ConfigError(f"inputs={inputs!r:.60} is one value: pass a list, such as inputs=[{inputs!r:.60}].")
    if isinstance(inputs, _SETS):
        raise ConfigError(f"inputs={inputs!r:.60} is a set, which has another order in each run. Pass inputs=sorted(…).")
    if isinstance(inputs, Mapping):
        raise ConfigError(f"inputs={inputs!r:.60} is a dict: pass a list, such as inputs=list(names.items()).")
    if not isinstance(inputs, _MANY):
        raise ConfigTypeError(f"inputs={inputs!r:.60} is not accepted: it takes a list, or anything that can be iterated.")
    found = inputs if isinstance(inputs, Sequence) and _can_be_cut(inputs) else list(inputs)
    if not found:
        raise ConfigError("inputs= is empty: there is nothing to do. Check the pattern or the folder that they come from.")
    return found


def _can_be_cut(inputs: Sequence[Any]) -> bool:
    try:
        inputs[:0]
    except TypeError:  # a deque
        return False
    return True


def checked_weights(weights: Any, fast_dev_run: bool | int) -> list[float] | None:  # noqa: FBT001 - the documented argument
    """Return what each input costs; in a trial run, each of those that are tried.

    Raises:
        ConfigTypeError: They are no numbers.
        ConfigError: One is negative, infinite or not a number.
    """
    if weights is None:
        return None
    try:
        costs = [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise ConfigTypeError(f"weights={weights!r:.60} is not accepted: it takes a list of numbers, one for each input.") from error
    for index, cost in enumerate(costs):
        if not 0 <= cost < math.inf:
            raise ConfigError(f"weights[{index}]={cost!r} is not accepted: what an input costs is a number ≥ 0.")
    return costs[: dev_inputs(fast_dev_run)]


def checked_flags(**given: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ConfigTypeError: Something is.
    """
    for name, value in given.items():
        flag(name, value)


def checked_functions(**given: Any) -> None:
    """Refuse what cannot be called; `None` is none.

    Raises:
        ConfigTypeError: Something cannot be.
    """
    for name, value in given.items():
        if value is not None and not callable(value):
            raise ConfigTypeError(f"{name}={value!r:.80} is not accepted: it takes a function.")


def check_reader(reader: Any) -> None:
    """Refuse what does not read inputs.

    Raises:
        ConfigTypeError: It has no `read` and `remap_items`.
    """
    if isinstance(reader, type):
        raise ConfigTypeError(f"reader={reader.__name__} is a class: pass an object of it, such as reader={reader.__name__}(…).")
    if reader is not None and not (callable(getattr(reader, "read", None)) and callable(getattr(reader, "remap_items", None))):
        raise ConfigTypeError(f"reader={reader!r:.80} is not accepted: it takes an object of a subclass of BaseReader.")


def check_encryption(encryption: Any) -> None:
    """Refuse what does not encrypt.

    Raises:
        ConfigTypeError: It is neither `AesGcm` nor an `Encryption`.
    """
    names = ("algorithm", "level") if isinstance(encryption, AesGcm) else ("algorithm", "level", "encrypt", "decrypt")
    if encryption is not None and not all(hasattr(encryption, name) for name in names):
        kind = type(encryption).__name__  # and not the value: it may be the password
        raise ConfigTypeError(f"encryption=… is a {kind}, which is not accepted: it takes AesGcm(key=… or password=…), or an Encryption.")


def some_bytes(name: str, value: Any) -> int:
    """Return a number of bytes, at least one.

    Raises:
        ConfigError: It is not.
    """
    found = parse_bytes(value, name)
    if found < 1:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a number of bytes ≥ 1, or text such as '64MB'.")
    return found


def batched(values: Iterator[Any], batch_size: int | None) -> Iterator[Any]:
    """Yield lists of values, or the values themselves if no size is given.

    Raises:
        ConfigError: The size is not accepted.
    """
    if batch_size is None:
        return values
    size = whole("batch_size", batch_size, 1)
    return iter(lambda: list(itertools.islice(values, size)), [])


def dev_inputs(fast_dev_run: bool | int) -> int | None:  # noqa: FBT001 - the documented argument
    """Return after how many inputs a trial run ends; `None`: after the last."""
    if fast_dev_run is False or fast_dev_run is None:
        return None
    if fast_dev_run is True:
        return DEV_RUN_INPUTS
    if not isinstance(fast_dev_run, int) or fast_dev_run < 1:
        raise ConfigError(f"fast_dev_run={fast_dev_run!r} is not accepted: it takes True, False, or a number of inputs ≥ 1.")
    return fast_dev_run


def output_of(place: "str | os.PathLike[str] | Dir", *, is_alone: bool) -> str:
    """Return the output as an absolute path or URL, times filled in.

    Raises:
        ConfigError: Several drivers could fill in different times, or it is a file.
    """
    text = place_of(place)
    if _TEMPLATE.search(text):
        said = settings.environment().get("LEYDEN_DATA_TIME")
        if said is None and not is_alone:
            raise ConfigError(f"output_dir={text!r} holds a time, which drivers may fill in differently: set LEYDEN_DATA_TIME=$(date +%s).")
        now = time.localtime(float(said) if said is not None else None)
        text = _TEMPLATE.sub(lambda match: time.strftime(match[1], now), text)
    if "://" in text:
        return text
    refuse_file(text)
    return str(Path(text).expanduser().absolute())


def refuse_file(place: str) -> None:
    """Refuse a local file where a folder is meant.

    Raises:
        ConfigError: It is one.
    """
    if "://" not in place and Path(place).expanduser().is_file():
        raise ConfigError(f"{place!r} is a file, and a dataset is a folder. Name a folder.")


def refuse_machines(num_nodes: int | None, machine: Any) -> None:
    """Refuse to rent machines.

    Raises:
        ConfigError: One of the two is given.
    """
    if num_nodes is not None or machine is not None:
        raise ConfigError(f"num_nodes={num_nodes!r}, machine={machine!r}: jobs do not start machines; {_LAUNCH}")


def warn_without_effect(**arguments: Any) -> None:
    """Warn of arguments that are taken for the sake of other libraries' scripts, and change nothing."""
    given = [name for name, value in arguments.items() if value]
    if given:
        warnings.warn(f"{', '.join(given)}: without effect here; leave it out.", UserWarning, stacklevel=3)


def usable_workers(num_workers: int | None) -> int:
    """Return how many worker processes to use: by default the cores that this process may use.

    Raises:
        ConfigError: It is no whole number ≥ 0.

    Example:
        >>> usable_workers(0)
        0
    """
    if num_workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(cores, _quota() or cores))
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 0:
        raise ConfigError(f"num_workers={num_workers!r} is not accepted: it takes a whole number ≥ 0 (0: in this process), or None.")
    return num_workers


def _quota() -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return 0


def check_job(*, on_error: Any, start_method: Any, progress: Any = None) -> None:
    """Refuse what no job accepts, and warn of what is not safe.

    Raises:
        ConfigError: A word is not among the accepted ones.
    """
    _one_of("on_error", on_error, ("raise", "skip", "quarantine"))
    _one_of("start_method", start_method, (None, "forkserver", "spawn", "fork"))
    checked_progress(progress)
    if start_method == "fork":
        warnings.warn("start_method='fork' copies locks of running threads; 'forkserver' is safe.", UserWarning, stacklevel=3)


def _one_of(name: str, value: Any, accepted: Sequence[Any]) -> None:
    if value not in accepted:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes {', '.join(map(repr, accepted))}.")
