"""Half a minute of chaos: nothing lost, nothing twice, and no watcher ended by itself."""

import pytest

from tests.chaos.run import run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whatever_happens_lake_and_mlflow_are_those_of_an_undisturbed_watcher(tmp_path):
    report = run(seed=1, seconds=30, folder=tmp_path / "world")
    assert not report.failures, str(report)
