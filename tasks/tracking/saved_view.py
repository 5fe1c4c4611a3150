"""The view of the experiment that `tim ui` opens: what the run list shows, and the charts.

MLflow keeps views that people share as tags of the experiment; this is one that we share. What is
in it is the state of MLflow's page (3.17), which nobody promises to keep: it is written only where
there is none, and a page that does not know it shows its own.
"""

import json
import time
from typing import Any

KEY = "timtrack"
VIEW_TAG = f"mlflow.sharedViewState.{KEY}"
COLUMNS = (
    *("metrics.`mismatch/kl_k3`", "metrics.`mismatch/frac_outside_2`", "params.`model`"),
    *("tags.`mismatch.status`", "tags.`mismatch.status_since`"),
)
CHARTS = ("kl_k3", "frac_outside_2", "abs_logp_diff_p50", "kl_k1", "ratio_mean", "ess_token")
LOGARITHMIC = ("kl_k3", "frac_outside_2", "abs_logp_diff_p50")  # healthy and bad lie decades apart
SECTION = "timtrack-headline"

# What ends the address of the runs' page: that of training runs, in our view.
QUERY = f"?workflowType=machine_learning&viewStateShareKey={KEY}"


def saved_view(runs_have: str) -> str:
    """The tag's value; only runs that have the tag `runs_have` are shown."""
    now = time.time_ns() // 1_000_000
    dated = {"createdAt": now, "updatedAt": now}
    return json.dumps({"name": KEY, **dated, "state": json.dumps(_state(runs_have))})


def _state(runs_have: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`{runs_have}` LIKE '%'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(COLUMNS),
        "compareRunSections": [
            {"uuid": SECTION, "name": "Headline", "display": True, "isReordered": True}
        ],
        "compareRunCharts": [_chart(name) for name in CHARTS],
    }


def _chart(name: str) -> dict[str, Any]:
    """A curve over training steps, a line a run."""
    key = f"mismatch/{name}"
    return {
        "uuid": f"timtrack-{name}",
        "type": "LINE",
        "deleted": False,
        "isGenerated": False,
        "metricSectionId": SECTION,
        "metricKey": key,
        "selectedMetricKeys": [key],
        "selectedYAxisMetricKey": "metric",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear",
        "scaleType": "log" if name in LOGARITHMIC else "linear",
        "lineSmoothness": 0,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "useGlobalLineSmoothing": False,
        "useGlobalXaxisKey": False,
        "range": {},
    }
