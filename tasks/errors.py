"""The root of all errors that a user can cause, or mend: `tim` prints their text, no trace."""


class TimtrackError(Exception):
    """Its text says what was seen, what was expected, and what to do."""
