"""Bring a run or the dashboard to the Hugging Face Hub (log in first: hf auth login).

python -m sentiment_core.publishing card smollm2-135m                   # write the run's model card again
python -m sentiment_core.publishing push smollm2-135m --repo me/name    # the adapter; --merged: one model
python -m sentiment_core.publishing space --repo me/name                # create or update a Space
python -m sentiment_core.publishing space --dry-run folder              # write its folder, upload nothing
python -m sentiment_core.publishing browser --run smollm2-135m          # both models for a visitor's browser
"""

import argparse
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentiment_core import cli
from sentiment_core.artifacts.store import read_finished
from sentiment_core.config import ASSETS
from sentiment_core.publishing import hub
from sentiment_core.publishing.card import PublishError, write_card


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct."""
    what, _, commands = (__doc__ or "").partition("\n\n")
    looks = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": commands}
    parser = argparse.ArgumentParser(prog="python -m sentiment_core.publishing", description=what, **looks)
    parser.add_argument("action", choices=("card", "push", "space", "browser"))
    once = {"default": argparse.SUPPRESS, "metavar": "RUN"}
    parser.add_argument("run", nargs="?", help="a run's name, for card, push and browser", **once)
    parser.add_argument("--run", help="the same as a flag", **once)
    parser.add_argument("--output", type=Path, help="of browser: where to (default: assets/browser/RUN)")
    parser.add_argument("--dataset", default="challenge", help="of browser: what it is checked by")
    parser.add_argument("--limit", type=int, help="of browser: check on only so many reviews")
    parser.add_argument("--repo", default="", help="where to: user/name on the Hub")
    parser.add_argument("--merged", action="store_true", help="push the merged model instead of the adapter")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="write there, and upload nothing")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder of artifacts (default: assets)")
    given = parser.parse_args(argv, argparse.Namespace(run=""))
    return cli.run(lambda: str(publish(given)))


def publish(given: argparse.Namespace) -> str | Path:
    """Write what was asked for, and upload it unless that is not meant. Returns where it is."""
    if given.action in ("push", "space") and not given.repo and not given.dry_run:
        raise PublishError(f"{given.action} needs --repo user/name, or --dry-run FOLDER")
    if given.dry_run and given.dry_run.exists():
        raise PublishError(f"--dry-run {given.dry_run} exists; name a folder that does not")
    if given.action != "space" and not given.run:
        raise PublishError(f"{given.action} needs the name of a run under {given.assets / 'runs'}")
    run: Any = read_finished(given.assets / "runs" / given.run) if given.action != "space" else None
    if given.action == "card":
        return write_card(run, given.assets)
    if given.action == "browser":
        if missing := [name for name in ("onnx", "onnxruntime") if not find_spec(name)]:
            raise PublishError(f"the export needs {' and '.join(missing)}: pip install '.[browser]'")
        from sentiment_core.publishing.browser import write_browser

        folder = given.output or given.assets / "browser" / run.run_id
        return write_browser(run, given.assets, folder, dataset=given.dataset, limit=given.limit)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.dry_run or Path(scratch) / "upload"
        if given.action == "space":
            hub.write_space(folder, given.assets, given.repo)
        else:
            hub.write_run(folder, run, given.assets, given.repo, merged=given.merged)
        return folder if given.dry_run else hub.upload(folder, given.repo, "model" if run else "space")


if __name__ == "__main__":
    raise SystemExit(main())
