"""What each framework's table was tested against, as the documents list it."""

import json
from pathlib import Path

from timtrack.tasks.tables.frameworks import FRAMEWORKS

WRITTEN = Path(__file__).parents[1] / "frameworks" / "written"
# Where the source was read, of those that publish no package whose function runs on a CPU.
READ = {
    "nemo_rl": "main of 2026-08-22",
    "slime": "main of 2026-08-21",
    "miles": "main of 2026-08-21",
    "prime_rl": "main of 2026-08-21, prime-rl#3418",
    "areal": "main of 2026-05-21, newer public copies",
    "roll": "main of 2026-08-19",
    "open_instruct": "main of 2026-08-20",
    "mimo": "none is public",
}
# Numbers of random captures on which the source's own functions, taken out of it, were run once.
RUN_ONCE = {
    **{"slime": 3816, "prime_rl": 360, "areal": 336, "open_instruct": 288, "nemo_rl": 228},
    "roll": 96,
}
RESTATED = {
    "verl": "of_verl.py and tests/by_numpy.py",
    "nemo_rl": "of_openrlhf_nemo.py and tests/by_numpy.py",
    "slime": "of_slime.py and tests/by_numpy.py",
    "miles": "of_slime.py and tests/by_numpy.py",
    "openrlhf": "of_openrlhf_nemo.py",
    "ms_swift": "of_ms_swift.py",
    "prime_rl": "of_prime_rl.py",
    "roll": "of_roll.py",
    **dict.fromkeys(("trl", "skyrl"), "of_trl_skyrl.py"),
    **dict.fromkeys(("areal", "open_instruct", "tinker", "mimo"), "of_packed.py"),
}


def rows() -> list[tuple[str, str, str, str]]:
    """Framework, version, table, how its numbers were tested."""
    return [(name, _version(name), f"`{name}_metrics`", _test(name)) for name in sorted(FRAMEWORKS)]


def _told(name: str) -> dict[str, str] | None:
    file = WRITTEN / name / "expected.json"
    return json.loads(file.read_text()) if file.exists() else None


def _version(name: str) -> str:
    told = _told(name)
    return told["version"] if told else READ[name]


def _test(name: str) -> str:
    restated = f"restated in NumPy (tests/parity/{RESTATED[name]})"
    if name == "mimo":
        return f"the dashboard's tags, {restated}"
    if _told(name):
        return f"numbers of the package's own functions; {restated}"
    once = f"; {RUN_ONCE[name]:,} numbers of its own functions, once" if name in RUN_ONCE else ""
    return f"{restated}, from its source{once}"
