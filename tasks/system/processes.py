"""Whether other processes of this machine are there."""

import os


def lives(number: int) -> bool:
    """Whether the process of that number is there."""
    try:
        os.kill(number, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    return True
