"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one line that names the offending value and what would be valid.

    The command line prints it without a traceback and exits with status 2.
    """
