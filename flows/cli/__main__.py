"""`python -m timtrack.flows.cli` is `tim`."""

import sys

from timtrack.flows.cli.main import main

sys.exit(main())
