"""Real servers on loopback, started and stopped by tests."""

import sys

# faulthandler: a SIGBUS says where it was.
TIM = [sys.executable, "-X", "faulthandler", "-m", "timtrack.flows.cli"]
