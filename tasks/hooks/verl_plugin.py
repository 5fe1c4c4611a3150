"""verl's plug-in: with timtrack installed beside verl, TIMTRACK_CAPTURES=<folder> captures steps.

verl imports this in each of its processes (entry points of the group `verl.plugins`); without the
variable nothing else is imported.
"""

import os

if os.environ.get("TIMTRACK_CAPTURES"):
    import timtrack.tasks.hooks.verl
    import timtrack.tasks.hooks.verl_v1  # noqa: F401
