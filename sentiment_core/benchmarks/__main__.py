"""Measure speed and keep the result under assets/benchmarks/.

    python -m sentiment_core.benchmarks train|score|live|browser|trace|parity|seeds|export --help

Each compares several systems in one run on the same reviews: median with the slowest and fastest repeat,
warm-up apart, the time to the first result told separately.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sentiment_core import cli
from sentiment_core.artifacts.schema import BenchmarkRecord
from sentiment_core.config import ASSETS

KINDS = {
    "train": "training: 4-bit layers, compiled, padding-free, Liger, TRL, and ours",
    "score": "scoring many reviews: a transformers loop, its best form, and ours",
    "live": "one review at a time: our number formats, llama.cpp, ONNX Runtime, a DistilBERT-like",
    "browser": "one review at a time in a visitor's browser, beside the server's path",
    "trace": "leaving out the clause that moved the answer most, beside other choices of a clause",
    "parity": "accuracy of the fast path and of the plain one, trained alike",
    "export": "what an adapter answers by plain PEFT, merged, and in the live number formats",
    "seeds": "validation accuracy of each recipe from several seeds",
}
"""Each is a module of this package with `FLAGS`, name -> (default, help), and `run(arguments)`."""


def main(argv: Sequence[str] | None = None) -> int:
    kind = next(iter(sys.argv[1:] if argv is None else argv), "")
    looks = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m sentiment_core.benchmarks", description=about)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for name, help in KINDS.items():
        sub = kinds.add_parser(name, help=help, description=help, **looks)
        sub.add_argument("--output", default=str(ASSETS / "benchmarks" / f"{name}.json"), help="where to")
        flags = importlib.import_module(f"sentiment_core.benchmarks.{name}").FLAGS if name == kind else {}
        for flag, (default, help) in flags.items():
            more: dict[str, Any] = {"type": int if default is None else type(default)}
            if default is False:
                more = {"action": "store_true"}
            sub.add_argument(f"--{flag}", default=default, help=help, **more)
    return cli.run(lambda: measured(parser.parse_args(argv)))


def measured(arguments: argparse.Namespace) -> str:
    """A line a row, with all that was measured, and where it stands; nothing but on the first process."""
    module = importlib.import_module(f"sentiment_core.benchmarks.{arguments.kind}")
    record: BenchmarkRecord = module.run(arguments)
    if os.environ.get("RANK", "0") != "0":
        return ""
    rows = [row.model_dump(exclude_none=True, exclude_defaults=True) for row in record.rows]
    table = pd.json_normalize(rows).to_string(index=False, na_rep="–", float_format="{:,.4g}".format)
    return f"{table}\n\n{record.hardware.device}; written to {arguments.output}"


if __name__ == "__main__":
    sys.exit(main())
