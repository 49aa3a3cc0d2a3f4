"""`result.json`: everything needed to interpret a run's numbers, written last; without it, a run is unfinished."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_lightning.atomic import replacing

SCHEMA_VERSION = 1


def write_result(path: Path, facts: dict[str, Any]) -> None:
    """Write `facts` and the time as one JSON file, completely or not at all."""
    head = {"schema_version": SCHEMA_VERSION, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    with replacing(path) as temporary:
        text = json.dumps(head | facts, indent=2, allow_nan=False)
        temporary.write_text(text + "\n")
