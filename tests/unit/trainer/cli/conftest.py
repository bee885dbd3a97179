"""Short names are looked for among all classes of the process: those of libraries that other tests have imported do not count."""

from typing import Any

import pytest
from jsonargparse import _typehints

OTHERS = ("bitsandbytes.", "deepspeed.", "torchao.")


@pytest.fixture(autouse=True)
def classes_of_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _typehints.get_all_subclass_paths

    def without_others(*args: Any, **kwargs: Any) -> list[str]:
        return [path for path in found(*args, **kwargs) if not path.startswith(OTHERS)]

    monkeypatch.setattr(_typehints, "get_all_subclass_paths", without_others)
