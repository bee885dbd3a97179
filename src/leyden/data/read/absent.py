"""`hint_at`: what lies where no dataset does: a job that has not ended, or a name that is nearly the same."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.core.errors import LeydenError, closest
from leyden.core.storage import Storage, is_url, open_storage

_FILE = re.compile(r"_leyden/jobs/([^/]+)/(plan|ended|done-\d+)\.json")


def hint_at(url: str, options: Mapping[str, Any] | None = None) -> str:
    """Return a sentence that goes behind "there is no dataset", or an empty string.

    Args:
        url: Where it was looked for.
        options: For the storage.

    Example:
        >>> hint_at("memory://empty")
        ''
    """
    with contextlib.suppress(LeydenError, OSError, KeyError, ValueError):  # a hint is worth no other error
        return _job(open_storage(url, options)) or _name_like(url)
    return ""


def _job(storage: Storage) -> str:
    found = [match for entry in storage.list("_leyden/jobs") if (match := _FILE.fullmatch(entry.key))]
    ended = {match[1] for match in found if match[2] == "ended"}
    open_jobs = sorted({match[1] for match in found if match[2] == "plan"} - ended)
    if not open_jobs:
        return ""
    done = Counter(match[1] for match in found if match[2].startswith("done-"))
    job = max(open_jobs, key=lambda each: done[each])
    plan = json.loads(storage.read(f"_leyden/jobs/{job}/plan.json"))
    function = plan["about"]["function"]
    return (
        f" A job of {function['module']}.{function['qualname']} has not ended there: {done[job]} of {plan['units']} units are done. "
        "Run the same command again: it goes on."
    )


def _name_like(url: str) -> str:
    if is_url(url):
        return ""
    path = Path(url).absolute()
    return closest(path.name, [each.name for each in path.parent.iterdir() if each.is_dir() and each != path])
