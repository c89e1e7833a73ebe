"""Score reviews with the base model, the baselines or a fine-tuned run, and save one evaluation each.

python eval.py --run smollm2-135m --system all        # all five systems on IMDB's 25,000 test reviews
python eval.py --run smollm2-135m                     # the fine-tuned model alone
python eval.py --system baseline-generated --limit 1000
python eval.py --run smollm2-135m --system all --dataset my_reviews.csv
accelerate launch eval.py --run smollm2-135m          # all GPUs of this host
torchrun --nproc-per-node 4 -- eval.py --run smollm2-135m
python eval.py --report                               # the results table, for the README

The same command after a stop goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sentiment_core import config as settings
from sentiment_core.base_models import BaseModelError

MEMORY_ADVICE = (
    "the GPU ran out of memory; what is scored is kept: repeat the command with a smaller --batch-tokens"
    "{was}, a lower --max-length-tokens, or --engine plain"
)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    settings.add_flags(out, settings.EvalConfig)
    out.add_argument("--overwrite", action="store_true", help="replace finished evaluations")
    out.add_argument("--report", action="store_true", help="print a table of all evaluations, and stop")
    out.add_argument(
        "--assets", type=Path, default=settings.ASSETS, help="folder of artifacts (default: assets)"
    )
    out.add_argument(
        "--work", type=Path, default=Path("outputs"), help="unfinished evaluations (default: outputs)"
    )
    return out


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct, 130 stopped by Ctrl-C."""
    given = vars(parser().parse_args(arguments))
    if given["report"]:
        return report(given["assets"])
    try:
        config = settings.from_flags(settings.EvalConfig, given)
    except settings.ConfigError as error:
        return fail(error)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import torch

        from sentiment_core.artifacts import ArtifactError
        from sentiment_core.data import DataError
        from sentiment_core.evaluation.runner import describe, evaluate
    except ImportError as error:
        return fail(f"{error}; install what is missing with: pip install -r requirements.txt")
    try:
        outcomes = evaluate(config, assets=given["assets"], work=given["work"], overwrite=given["overwrite"])
    except (settings.ConfigError, DataError, BaseModelError, ArtifactError) as error:
        return fail(error)
    except torch.OutOfMemoryError:
        was = f" (it was {config.batch_tokens})" if config.batch_tokens else " (for example 8192)"
        return fail(MEMORY_ADVICE.format(was=was))
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where it stopped.", file=sys.stderr)
        return 130
    if outcomes:
        print(describe(outcomes, given["assets"]))
    return 0


def report(assets: Path) -> int:
    from sentiment_core.artifacts import ArtifactError
    from sentiment_core.report import report_text

    try:
        print(report_text(assets))
    except ArtifactError as error:
        return fail(error)
    return 0


def fail(message: object) -> int:
    print(f"eval.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
