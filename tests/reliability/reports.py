"""What a long run saw, as JSON in the folder that SOAK_REPORT_DIR names; nothing without it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def report(name: str, figures: Mapping[str, object]) -> None:
    if folder := os.environ.get("SOAK_REPORT_DIR"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
