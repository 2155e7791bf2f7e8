"""Silences what imported packages print and what no user of our command line can act on."""

from __future__ import annotations

import contextlib
import logging
import os


def silence_gym_notice() -> None:
    """Keep gym, which Habitat pins, from printing that it is unmaintained; before its import."""
    with contextlib.suppress(ImportError):
        from gym_notices import notices

        notices.notices.clear()


def log_to_files_only() -> None:
    """Let Habitat's logger show warnings on the terminal; files get every line as before.

    Progress bars show what the lines say. HABITAT_LAB_LOG, if set, decides as it does upstream.
    """
    if "HABITAT_LAB_LOG" in os.environ:
        return
    from habitat import logger

    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
    # Workers have loggers of their own.
    os.environ["HABITAT_LAB_LOG"] = str(logging.WARNING)
