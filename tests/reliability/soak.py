"""The long form of this folder's tests, as a report that the Method tab shows: `make soak`.

Crowds of visitors against the real model on this processor, hostile inputs, kills, damaged artifacts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.schema import SoakRecord
from sentiment_core.artifacts.store import utc_now, write_record
from sentiment_core.config import ASSETS
from tests.reliability import load

LONG = {"SOAK_INPUTS": "10000", "SOAK_KILLS": "60", "SOAK_MUTATIONS": "150"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, default=180, help="of each crowd")
    parser.add_argument("--output", type=Path, default=ASSETS / "benchmarks" / "soak.json")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        crowds = load.measured(flags.visitors, flags.seconds)
        print(json.dumps(crowds, indent=1), file=sys.stderr, flush=True)
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "2", str(Path(__file__).parent)]
        subprocess.run(tests, env=LONG | os.environ | {"SOAK_REPORT_DIR": folder}, check=True)
        trials = {
            path.stem: json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("*.json"))
        }
    record = SoakRecord(
        created_at=utc_now(), commit=provenance.commit(), hardware=provenance.hardware("cpu"),
        versions=provenance.versions(), trials=trials, **crowds,
    )  # fmt: skip
    write_record(flags.output, record)


if __name__ == "__main__":
    main()
