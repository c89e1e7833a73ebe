"""Every tab shows the same numbers of the committed artifacts as it did before the package had rooms.

`page_numbers.json` holds those of commit 29cbc7b, whose page was the last one of a flat package, without
benchmarks and few-shot evaluations, which were made again since, and without what hovering over the
accuracy by length told, which is a table now.
"""

from __future__ import annotations

import base64
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
import pytest

from sentiment_core.config import ASSETS
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import ModelHost, Serving
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.texts import ReviewTexts

BEFORE = json.loads(Path(__file__).with_name("page_numbers.json").read_text())
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
TAGS = re.compile(r"<(?:a|svg|style)\b.*?</(?:a|svg|style)>|<[^>]*>", re.DOTALL)
DRAWN = ("x", "y", "z", "text", "customdata")
BOUNDS = ("array", "arrayminus")


def numbers(value: Any) -> Iterator[float]:
    """Those in the visible text of HTML, and in whatever lists and dictionaries hold."""
    if isinstance(value, str):
        yield from (float(found.replace(",", "")) for found in NUMBER.findall(TAGS.sub(" ", value)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
    elif isinstance(value, dict) and "bdata" in value:
        yield from np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)


def shown(value: Any) -> Iterator[float]:
    """The numbers of one output of a tab."""
    if isinstance(value, gr.Plot) and value.value is not None and value.visible:
        figure = json.loads(value.value["plot"])
        for trace in figure["data"]:
            yield from numbers([trace.get(key) for key in DRAWN])
            errors = [trace.get(key) or {} for key in ("error_x", "error_y")]
            yield from numbers([error.get(key) for error in errors for key in BOUNDS])
        yield from numbers([note.get("text", "") for note in figure["layout"].get("annotations", ())])
    elif isinstance(value, pd.DataFrame):
        yield from numbers(value.to_numpy().tolist())
    elif isinstance(value, gr.Radio):
        yield from numbers([name for name, _ in value.choices])
    elif isinstance(value, str):
        yield from numbers(value)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The committed artifacts but for benchmarks and few-shot evaluations."""
    root = tmp_path_factory.mktemp("assets")
    (root / "evals").mkdir()
    files = (ASSETS / name for name in ("runs", "references.json", "sample_reviews.jsonl"))
    for path in [*ASSETS.glob("evals/*"), *files]:
        place = root / path.relative_to(ASSETS)
        if path.is_file():  # the store takes no link for one of its files
            place.write_bytes(path.read_bytes())
        elif "few-shot" not in path.name:
            place.symlink_to(path)
    return Context(Store(root), Serving(ModelHost(lambda run: None)), ReviewTexts({}))


@pytest.mark.parametrize("where", BEFORE)
def test_a_tab_shows_the_numbers_that_it_showed(context: Context, where: str) -> None:
    tab, run_id, dataset = [*where.split(), ""][:3]
    with gr.Blocks():
        build = pkgutil.resolve_name(f"sentiment_core.dashboard.tabs.{tab}:build")
        part = build(context, gr.Dropdown([run_id]))
    inputs = [dataset if one is part.dataset else one.value for one in part.inputs]
    found = np.array(
        sorted({float(f"{n:.6g}") for one in part.render(run_id, *inputs) for n in shown(one) if n == n})
    )
    before = np.array(BEFORE[where])
    found = np.concatenate([found, 100 * found])  # AUC, a fraction now, was told in percent
    near = found[np.abs(found[:, None] - before).argmin(axis=0)]
    missing = before[~np.isclose(near, before, rtol=1e-5, atol=1e-9)]
    assert missing.tolist() == []
