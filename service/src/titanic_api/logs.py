"""What is no request is logged as one JSON object a line: by this service, and by gunicorn about itself."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import Any

from gunicorn.glogging import Logger


class JsonLines(logging.Formatter):
    """One JSON object a line for what is not a request: starts, stops, warnings, failures with their traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "pid": record.process,
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line)


class ServerLogger(Logger):
    """gunicorn's logger, which writes as the rest does."""

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's settings, and its handlers with another format."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonLines())
