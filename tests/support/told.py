"""What log records were about, where they were made."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from leyden.core.log import fields_of


class Told(logging.Handler):
    """Keeps messages and the fields that they would be shown with."""

    def __init__(self) -> None:
        super().__init__()
        self.records = list[tuple[str, dict[str, Any]]]()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.getMessage(), fields_of(record)))

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Listen to a logger."""
        logger = logging.getLogger(name)
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)

    def fields(self, message: str) -> list[dict[str, Any]]:
        """Return what records of a message were about."""
        return [fields for text, fields in self.records if message in text]

    def names(self, message: str) -> list[list[str]]:
        """Return the requests that each record of a message names."""
        return [fields.get("request_ids") or [fields["request_id"]] for fields in self.fields(message)]
