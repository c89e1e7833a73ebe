"""Fine-tune a language model on movie reviews with QLoRA and save one run under assets/runs/.

python train.py                                       # the best settings, all of IMDB
python train.py --preset study                        # the study's own settings
python train.py --dataset my_reviews.csv --limit 2000 --base-model Qwen/Qwen2.5-0.5B-Instruct
accelerate launch train.py                            # all GPUs of this host, same result
python train.py --resume                              # go on after a stop
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sentiment_core import config as settings
from sentiment_core.base_models import BaseModelError, suggestions_table

MEMORY_ADVICE = (
    "the GPU ran out of memory; try --micro-batch-size {smaller} (same result, more passes), "
    "a lower --max-length-tokens, or --engine plain --gradient-checkpointing"
)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    out.add_argument("--preset", choices=tuple(settings.PRESETS), default="best", help="default: best")
    settings.add_flags(out, settings.TrainConfig)
    out.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    out.add_argument("--overwrite", action="store_true", help="replace a finished run of the same name")
    out.add_argument(
        "--assets", type=Path, default=settings.ASSETS, help="folder of artifacts (default: assets)"
    )
    out.add_argument("--work", type=Path, default=Path("outputs"), help="checkpoints (default: outputs)")
    out.add_argument("--list-models", action="store_true", help="print base models known to work, and stop")
    return out


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct, 130 stopped by Ctrl-C."""
    given = vars(parser().parse_args(arguments))
    if given["list_models"]:
        print(suggestions_table())
        return 0
    try:
        preset = settings.PRESETS[given["preset"]] | {"preset": given["preset"]}
        config = settings.from_flags(settings.TrainConfig, given, **preset)
    except settings.ConfigError as error:
        return fail(error)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import torch

        from sentiment_core.artifacts import ArtifactError
        from sentiment_core.data import DataError
        from sentiment_core.trainer import DivergedError
        from sentiment_core.training import describe, train
    except ImportError as error:
        return fail(f"{error}; install what is missing with: pip install -r requirements.txt")
    try:
        record, folder = train(
            config,
            assets=given["assets"],
            work=given["work"],
            resume=given["resume"],
            overwrite=given["overwrite"],
        )
    except (settings.ConfigError, DataError, BaseModelError, ArtifactError, DivergedError) as error:
        return fail(error)
    except torch.OutOfMemoryError:
        smaller = max(1, (config.micro_batch_size or config.batch_size) // 2)
        return fail(MEMORY_ADVICE.format(smaller=smaller))
    except KeyboardInterrupt:
        print("\nStopped. The same command with --resume goes on from the last checkpoint.", file=sys.stderr)
        return 130
    if record is not None:
        print(describe(record, folder))
    return 0


def fail(message: object) -> int:
    print(f"train.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
