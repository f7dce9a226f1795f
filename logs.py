"""The log: lines for people, or one JSON object a line for machines (`server.log_format`)."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# Under this name a record carries what a machine would otherwise have to read out of its message.
FIELDS = "fields"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the record's fields, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; all in ASCII, so that no terminal or file is asked what it can show."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_terminal(log_format: str = "text") -> None:
    """Every line of the log goes to standard error; a later call changes the format.

    Args:
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
