"""What a long run saw, as JSON in the folder that SOAK_REPORT_DIR names; nothing without it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock


def report(name: str, figures: Mapping[str, int]) -> None:
    """Of a module that several processes shared, each adds its own."""
    if folder := os.environ.get("SOAK_REPORT_DIR"):
        path = Path(folder) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            total = Counter(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
            total.update(figures)
            path.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
