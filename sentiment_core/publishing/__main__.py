"""Bring a run or the dashboard to the Hugging Face Hub (log in first: hf auth login).

python -m sentiment_core.publishing card smollm2-135m                   # write the run's model card again
python -m sentiment_core.publishing push smollm2-135m --repo me/name    # the adapter; --merged: one model
python -m sentiment_core.publishing space --repo me/name                # create or update a Space
python -m sentiment_core.publishing space --dry-run folder              # write its folder, upload nothing
python -m sentiment_core.publishing browser --run smollm2-135m          # both models for a visitor's browser
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sentiment_core import cli
from sentiment_core.artifacts.store import read_run
from sentiment_core.config import ASSETS
from sentiment_core.publishing import hub
from sentiment_core.publishing.card import PublishError, write_card


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct."""
    what, _, commands = (__doc__ or "").partition("\n\n")
    looks = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": commands}
    parser = argparse.ArgumentParser(prog="python -m sentiment_core.publishing", description=what, **looks)
    parser.add_argument("action", choices=("card", "push", "space", "browser"))
    parser.add_argument("run", nargs="?", default="", help="a run's name, for card, push and browser")
    parser.add_argument("--run", dest="named", default="", metavar="RUN", help="the same as a flag")
    parser.add_argument("--output", type=Path, help="of browser: where to (default: assets/browser/RUN)")
    parser.add_argument(
        "--dataset", default="challenge", help="of browser: stored predictions to check it by"
    )
    parser.add_argument("--limit", type=int, help="of browser: check on only so many reviews")
    parser.add_argument("--repo", default="", help="where to: user/name on the Hub")
    parser.add_argument("--merged", action="store_true", help="push the merged model instead of the adapter")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="write there, and upload nothing")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder of artifacts (default: assets)")
    given = parser.parse_args(argv)
    given.run = given.run or given.named
    return cli.run(lambda: str(ACTIONS.get(given.action, send)(given)))


def read(given: argparse.Namespace):
    if not given.run:
        raise PublishError(f"{given.action} needs the name of a run under {given.assets / 'runs'}")
    return read_run(given.assets / "runs" / given.run)


def export(given: argparse.Namespace) -> str:
    from sentiment_core.publishing.browser import write_browser

    run = read(given)
    folder = given.output or given.assets / "browser" / run.run_id
    return write_browser(run, given.assets, folder, dataset=given.dataset, limit=given.limit)


def send(given: argparse.Namespace) -> str | Path:
    """Write what is to be uploaded, and upload it unless this is a dry run. Returns where it is."""
    if not given.repo and not given.dry_run:
        raise PublishError(f"{given.action} needs --repo user/name, or --dry-run FOLDER")
    if given.dry_run and given.dry_run.exists():
        raise PublishError(f"--dry-run {given.dry_run} exists; name a folder that does not")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.dry_run or Path(scratch) / "upload"
        if given.action == "push":
            hub.write_run(folder, read(given), given.assets, given.repo, merged=given.merged)
        else:
            hub.write_space(folder, given.assets, given.repo)
        kind = "model" if given.action == "push" else "space"
        return folder if given.dry_run else hub.upload(folder, given.repo, kind)


ACTIONS = {"card": lambda given: write_card(read(given), given.assets), "browser": export}


if __name__ == "__main__":
    sys.exit(main())
