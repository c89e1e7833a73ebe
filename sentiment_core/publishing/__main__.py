"""Bring a run to the Hugging Face Hub.

python -m sentiment_core.publishing card smollm2-135m   # write the run's model card again, from its artifacts
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sentiment_core import cli
from sentiment_core.artifacts.store import read_run
from sentiment_core.config import ASSETS
from sentiment_core.publishing.card import write_card


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct."""
    what, _, commands = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m sentiment_core.publishing", description=what, epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder of artifacts (default: assets)")
    actions = parser.add_subparsers(dest="action", required=True)
    card = actions.add_parser("card", help="write a run's model card beside its adapter")
    card.add_argument("run", help="its name under assets/runs")
    card.set_defaults(
        work=lambda given: write_card(read_run(given.assets / "runs" / given.run), given.assets)
    )
    given = parser.parse_args(argv)
    return cli.run(lambda: str(given.work(given)))


if __name__ == "__main__":
    sys.exit(main())
