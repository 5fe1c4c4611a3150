"""What a trainer had in its hands, for hooks_compare.py to hold a hook's capture against.

`truth.json`: by each capture's path below `captures`, its rows by their number, each a dict of
lists over the response's tokens and of single facts.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

CAPTURES = "captures"
Row = dict[str, Any]


def switched_on(folder: Path) -> Path:
    """Let `import timtrack_hook` find the hook in this folder and write below it."""
    os.environ["TIMTRACK_CAPTURES"] = str(folder.resolve() / CAPTURES)
    sys.path.insert(0, str(folder.resolve()))
    return folder


def row(
    ids: Any, mask: Any, logp_rollout: Any, logp_train: Any, advantage: Any, **facts: Any
) -> Row:
    """One response, from tensors or lists over its tokens alone."""
    over_tokens = {
        "token_id": ids,
        "is_trained": mask,
        "logp_rollout": logp_rollout,
        "logp_train": logp_train,
        "advantage": advantage,
    }
    lists = {name: values for name, values in over_tokens.items() if values is not None}
    return {**{name: [float(one) for one in values] for name, values in lists.items()}, **facts}


def write(folder: Path, rows_of: dict[str, list[Row] | dict[int, Row]]) -> None:
    """`truth.json` of the captures of a hook."""
    numbered = {
        path: rows if isinstance(rows, dict) else dict(enumerate(rows))
        for path, rows in rows_of.items()
    }
    (folder / "truth.json").write_text(json.dumps(numbered))
