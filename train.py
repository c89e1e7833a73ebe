"""Fine-tune a language model on movie reviews with QLoRA and save one run under assets/runs/.

python train.py                                       # the best settings, all of IMDB
python train.py --preset study                        # the study's own settings
python train.py --dataset my_reviews.csv --limit 2000 --base-model Qwen/Qwen2.5-0.5B-Instruct
python train.py --dataset my.csv --text-column body --label-column stars --label-map 1=negative,5=positive
python train.py --config assets/runs/smollm2-135m/run.json   # its settings again
accelerate launch train.py                            # all GPUs of this host, same result
python train.py --resume                              # continue an interrupted run
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from sentiment_core import cli
from sentiment_core.config import TrainConfig


def parser() -> argparse.ArgumentParser:
    out = cli.make_parser(__doc__, TrainConfig)
    out.add_argument("--resume", action="store_true", help="continue from the last checkpoint of this run")
    out.add_argument("--config", type=Path, help="run.json of a run to repeat; flags given besides win")
    out.add_argument("--estimate", metavar="CARD", help="time and memory on this GPU, and stop: T4, L4, …")
    return out


def main(arguments: list[str] | None = None) -> int:
    given = vars(parser().parse_args(arguments))
    return cli.run(
        lambda: train(given),
        advice="try a smaller --micro-batch-size (same result, more passes), a lower --max-length-tokens, "
        "or --engine nf4 --gradient-checkpointing",
        stopped="Stopped. The same command with --resume continues from the last checkpoint.",
    )


def train(given: dict) -> str:
    config, repeats = settings(given)
    if given["estimate"]:
        from sentiment_core.training.estimate import estimate

        return estimate(config, given["estimate"], given["assets"])
    from sentiment_core.artifacts import provenance
    from sentiment_core.artifacts.store import read_run
    from sentiment_core.publishing.card import write_card
    from sentiment_core.training import session

    folders = {name: given[name] for name in ("assets", "work", "resume", "overwrite")}
    record, folder = session.train(config, **folders)
    if record is None:  # another process of the same launch
        return ""
    write_card(read_run(folder), given["assets"])
    said = session.describe(record, folder)
    return f"{said}\n{provenance.differences(repeats, record)}" if given["config"] else said


def settings(given: dict) -> tuple[TrainConfig, Any]:
    """What the flags ask for, and the record of the run that it repeats, if any."""
    repeated, record = {}, None
    parts = [given["assets"] / "runs" / name for name in given.get("soup", ())]
    if path := given["config"] or next(iter(parts), None):
        from sentiment_core.training.session import settings_of

        repeated, record = settings_of(path)
    return cli.from_flags(TrainConfig, given, repeated), record


if __name__ == "__main__":
    sys.exit(main())
