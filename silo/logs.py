"""Where an agent's log lines go, and what they may hold: declared fields only (:mod:`silo.release`)."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from silo.release import declared_log_fields

MAX_LOG_BYTES = 10 * 1024 * 1024


def configure_logs(directory: Path, level: str) -> None:
    """Write lines to ``logs/agent.log`` (rotated) and, shorter, to standard error.

    Raises:
        OSError: the directory cannot be written.
    """
    (directory / "logs").mkdir(exist_ok=True)
    to_file = RotatingFileHandler(directory / "logs" / "agent.log", maxBytes=MAX_LOG_BYTES, backupCount=5)
    logging.raiseExceptions = False  # a full disk costs lines, and shows no traceback
    root = logging.getLogger()
    root.handlers = [to_file, logging.StreamHandler(sys.stderr)]
    for handler in root.handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            declared_log_fields,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
