"""Score reviews with the base model, the baselines or a fine-tuned run, and save one evaluation each.

python eval.py --run smollm2-135m --system all        # all systems on IMDB's 25,000 test reviews
python eval.py --run smollm2-135m                     # the fine-tuned model alone
python eval.py --system baseline-generated --limit 1000
python eval.py --run smollm2-135m --system all --dataset my_reviews.csv
accelerate launch eval.py --run smollm2-135m          # all GPUs of this host
torchrun --nproc-per-node 4 -- eval.py --run smollm2-135m
python eval.py --run smollm2-135m --predict texts.parquet --output scored.parquet   # no labels, any size
python eval.py --check-export smollm2-135m            # the same answers by plain PEFT, merged, live?
python eval.py --report                               # the results as a table

The same command continues an interrupted evaluation.
"""

import argparse
import sys
from pathlib import Path

from sentiment_core import cli
from sentiment_core.config import ConfigError, EvalConfig, flag


def parser() -> argparse.ArgumentParser:
    out = cli.make_parser(__doc__, EvalConfig)
    out.add_argument("--check-export", metavar="RUN", help="compare the forms of a run's adapter, and stop")
    out.add_argument("--predict", metavar="SOURCE", help="answer unlabelled texts (file, Hub id), and stop")
    out.add_argument("--output", type=Path, metavar="FILE", help="with --predict: where, a .parquet file")
    out.add_argument("--report", action="store_true", help="print a table of all evaluations, and stop")
    return out


def main(arguments: list[str] | None = None) -> int:
    given = vars(parser().parse_args(arguments))
    if given["check_export"]:
        return check_export(given)
    work = report if given["report"] else predict if given["predict"] else score
    return cli.run(
        lambda: work(given),
        advice="what is scored is kept: repeat the command with a smaller --batch-tokens, for example 4096, "
        "a lower --max-length-tokens, or --engine nf4",
        stopped="Stopped. The same command continues where it stopped.",
    )


def score(given: dict) -> str:
    config = cli.from_flags(EvalConfig, given)
    from sentiment_core.evaluation.runner import describe, evaluate

    outcomes = evaluate(config, assets=given["assets"], work=given["work"], overwrite=given["overwrite"])
    if any(record.run_id for record, _ in outcomes):
        answer_samples(config, given["assets"])
    return describe(outcomes, given["assets"]) if outcomes else ""


def predict(given: dict) -> str:
    config = cli.from_flags(EvalConfig, given | {"dataset": given["predict"]})
    if not given["output"]:
        raise ConfigError("--predict needs --output FILE.parquet")
    from sentiment_core.evaluation.predict import predict

    places = {name: given[name] for name in ("assets", "work", "overwrite")}
    return predict(config, given["output"], **places)


def answer_samples(config: EvalConfig, assets: Path) -> None:
    """Store what the run's models say of our own reviews, unless it is there; the page opens with it."""
    from sentiment_core.artifacts.store import read_sample_reviews
    from sentiment_core.evaluation.inputs import find_run
    from sentiment_core.live.samples import store_answers

    if (assets / "sample_reviews.jsonl").exists():
        samples = read_sample_reviews(assets)
        store_answers(find_run(config.run, assets), samples, base_model=config.base_model)


def check_export(given: dict) -> int:
    from sentiment_core.benchmarks.__main__ import main

    names = ("dataset", "limit", "seed", "base_model")
    flags = [f"{flag(name)}={given[name]}" for name in names if name in given]
    output = given["assets"] / "benchmarks" / "export.json"
    return main(["export", "--run", given["check_export"], f"--output={output}", *flags])


def report(given: dict) -> str:
    from sentiment_core.artifacts.report import results_table

    return results_table(given["assets"])


if __name__ == "__main__":
    sys.exit(main())
