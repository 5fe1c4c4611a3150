"""`python -m timtrack.flows.cli.announce URL PATH [open]`: the address, once a server answers.

A process beside the server's, which takes seconds to start, and ends with it.
"""

import os
import sys
import time
import urllib.request
import webbrowser

from timtrack.flows.cli.printing import say

PAUSE = 0.2  # seconds between two tries


def announce(server: str, path: str, opens: bool) -> None:
    """Print the address when `<server>/health` answers, or nothing if the server has ended."""
    parent = os.getppid()
    while not _answers(f"{server}/health"):
        if os.getppid() != parent:
            return
        time.sleep(PAUSE)
    say(f"{server}{path}")
    sys.stdout.flush()
    if opens:
        webbrowser.open(f"{server}{path}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    announce(sys.argv[1], sys.argv[2], "open" in sys.argv[3:])
