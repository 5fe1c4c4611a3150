"""`python -m timtrack.flows.cli` is `tim`."""

import sys

from timtrack.flows.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
