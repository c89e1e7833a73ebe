"""What the scripts share: flags from a config's fields, one sentence for an error, exit statuses."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from sentiment_core.config import ASSETS, FORMER_ENGINES, PRESETS, EvalConfig, TrainConfig, UserError, flag

Config = TypeVar("Config", bound=TrainConfig | EvalConfig)


def make_parser(doc: str, config: type) -> argparse.ArgumentParser:
    """A script's flags: one for each setting, and where it reads and writes.
    doc: the script's docstring, a line on what it does and then commands."""
    what, _, commands = doc.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=what, epilog=commands, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for item in dataclasses.fields(config):
        parser.add_argument(flag(item.name), **_options(item))
        for name, what in item.metadata.get("about", {}).items():
            parser.add_argument(flag(name), metavar="TEXT", default=argparse.SUPPRESS, help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is finished of the same name")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder of artifacts (default: assets)")
    unfinished = "checkpoints, unfinished evaluations (default: outputs)"
    parser.add_argument("--work", type=Path, default=Path("outputs"), help=unfinished)
    return parser


def _options(item: dataclasses.Field) -> dict[str, Any]:
    """What argparse wants to know; a flag not given stays out of the namespace, so that presets fill in."""
    about = item.metadata
    options = {"dest": item.name, "default": argparse.SUPPRESS, "help": about["help"]}
    if isinstance(item.default, bool):
        return options | {"action": argparse.BooleanOptionalAction}
    if about.get("many"):
        return options | {"action": "append", "metavar": about["many"]}
    if item.default not in (None, ""):
        options["help"] += f" (default: {item.default})"
    if "choices" in about:
        return options | {"choices": about["choices"], "type": lambda name: FORMER_ENGINES.get(name, name)}
    kind: Any = int if item.default is None else type(item.default)
    return options | {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def from_flags(config: type[Config], given: dict[str, Any], repeated: Mapping = {}) -> Config:
    """Defaults, then the settings of a run to repeat, then the preset's values, then what was given.
    Raises ConfigError: values out of bounds and contradictions, named by their flags."""
    items = {item.name: item.metadata.get("about", {}) for item in dataclasses.fields(config)}
    ours = items | items["dataset"]
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in ours}
    values = dict(repeated) | PRESETS.get(asked.get("preset", ""), {}) | asked
    if about := {name: values.pop(name) for name in items["dataset"] if name in values}:
        dataset = values.get("dataset", config.dataset)
        values["dataset"] = f"{dataset}{'&' if '?' in dataset else '?'}{urlencode(about, safe=',=')}"
    return config(**values)


def run(work: Callable[[], str], *, advice: str = "", stopped: str = "Stopped.") -> int:
    """Do a script's work and print what it says.
    work: imports what is heavy by itself; returns the text to print, "" for none.
    advice: what helps when the GPU's memory does not suffice. stopped: what to say after Ctrl-C.
    Returns the exit status: 0 done, 2 something to correct, 130 stopped by Ctrl-C."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        if text := work():
            print(text)
        return 0
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    except UserError as error:
        wrong = str(error)
    except ImportError as error:
        wrong = f"{error}; install what is missing with: pip install -r requirements.txt"
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch may not be there to ask
            raise
        wrong = f"the GPU ran out of memory; {advice}"
    print(f"{Path(sys.argv[0]).name}: {wrong}", file=sys.stderr)
    return 2
