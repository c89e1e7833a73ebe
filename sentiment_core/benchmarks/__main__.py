"""Measure speed and keep the result under assets/benchmarks/.

    python -m sentiment_core.benchmarks live
    python -m sentiment_core.benchmarks train --dataset stanfordnlp/imdb
    python -m sentiment_core.benchmarks score --run smollm2-135m
    python -m sentiment_core.benchmarks parity --dataset stanfordnlp/imdb
    python -m sentiment_core.benchmarks seeds --dataset stanfordnlp/imdb

Each compares several systems in one run on the same reviews: median with the slowest and fastest repeat,
warm-up apart, the time to the first result told separately.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.config import ASSETS

KINDS = {
    "train": "training: the study's settings, plain PEFT + bitsandbytes, and ours",
    "score": "scoring many reviews: a transformers loop, the text-generation pipeline, and ours",
    "live": "one review at a time: our number formats, and a pipeline of DistilBERT's shape",
    "parity": "accuracy of the fast path and of the plain one, trained alike",
    "seeds": "validation accuracy of each recipe from several seeds",
}
"""Each is a module of this package with `add_flags(parser)` and `run(arguments)`."""


def main(argv: Sequence[str] | None = None) -> int:
    kind = next(iter(sys.argv[1:] if argv is None else argv), "")
    looks = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m sentiment_core.benchmarks", description=about)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for name, help in KINDS.items():
        sub = kinds.add_parser(name, help=help, description=help, **looks)
        sub.add_argument("--output", default=str(ASSETS / "benchmarks" / f"{name}.json"), help="where to")
        if name == kind:
            importlib.import_module(f"sentiment_core.benchmarks.{name}").add_flags(sub)
    arguments = parser.parse_args(argv)
    try:
        record = importlib.import_module(f"sentiment_core.benchmarks.{arguments.kind}").run(arguments)
    except (ValueError, OSError) as error:  # the core's own errors are ValueErrors of one sentence
        print(f"error: {error}", file=sys.stderr)
        return 2
    if os.environ.get("RANK", "0") != "0":
        return 0
    store.write_record(Path(arguments.output), record)
    print(table(record))
    print(f"\n{record.hardware.device}; written to {arguments.output}")
    return 0


def table(record: BenchmarkRecord) -> str:
    """The rows as a Markdown table."""
    live = record.kind == "live"
    speed = "Latency (s/review)" if live else "reviews/s"
    head = f"| system | {speed} (median) | low – high | Time to first result (s) | peak memory, MB | note |"
    lines = [_line(row, 3 if live else 1) for row in record.rows]
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | --- |", *lines])


def _line(row: BenchmarkRow, digits: int) -> str:
    speed, right = row.seconds_per_review or row.reviews_per_second, row.validation_accuracy
    cells = [
        row.system,
        f"{speed.value:,.{digits}f}" if speed else "–",
        f"{speed.low:,.{digits}f} – {speed.high:,.{digits}f}" if speed and speed.low is not None else "–",
        "–" if row.first_step_seconds is None else f"{row.first_step_seconds:.1f}",
        "–" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:,.0f}",
        (f"{right.value:.2%} of {right.n:,} validation reviews; " if right else "") + row.note,
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
