"""The flow `watch` as a deployment's workers load it: on the task runner of TIMTRACK_RUNNER.

Prefect takes the task runner from the flow object, so a worker's is chosen when it is loaded.
"""

from timtrack.flows import runner
from timtrack.flows.settings import Settings
from timtrack.flows.watch import watch as swept

watch = swept.with_options(task_runner=runner.made(Settings.read().runner))
