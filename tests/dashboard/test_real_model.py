"""The running app with the real default model, asked through gradio_client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client

from sentiment_core.artifacts.store import read_predictions
from sentiment_core.dashboard import app
from sentiment_core.dashboard.serving import load_live
from sentiment_core.dashboard.store import Store
from sentiment_core.models.base_models import BaseModelError, resolve

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]
REVIEWS = 96
"""Test reviews compared with the committed predictions."""


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(ROOT / "assets")


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[Client]:
    try:
        load_live(store.run(None))
    except BaseModelError as error:
        pytest.skip(f"the base model cannot be had here: {error}")
    demo = app.build(store.root, load_live, texts={})
    _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    asking = Client(url, verbose=False, analytics_enabled=False)
    yield asking
    asking.close()
    demo.close()


def test_the_app_answers_as_the_scorer_does(client: Client, store: Store) -> None:
    from sentiment_core.engines.scorer import SentimentScorer
    from sentiment_core.models.loading import load_adapter, load_base

    run = store.run(None)
    texts = [sample.text for sample in store.samples()[:12]]
    answers = client.predict(texts, api_name="/classify_batch")
    assert answers[0] == client.predict(texts[0], api_name="/classify") | {
        key: value for key, value in answers[0].items() if key.endswith("p_positive")
    }
    loaded = load_base(resolve(None, run.record.base_model.name if run else None))
    limit = int(run.record.config.get("max_length_tokens", 1024)) if run else 1024
    base = np.array([answer["base_p_positive"] for answer in answers])
    scored = SentimentScorer(loaded)(texts, limit)
    assert np.abs(base - scored).mean() <= 0.01
    if run is None:
        return
    tuned = np.array([answer["fine_tuned_p_positive"] for answer in answers])
    scored = SentimentScorer(loaded, load_adapter(loaded.model, run.adapter_path))(texts, limit)
    assert np.abs(tuned - scored).mean() <= 0.01


def imdb() -> Path | None:
    """SENTIMENT_IMDB, or ../shared/imdb beside the checkout."""
    for folder in (os.environ.get("SENTIMENT_IMDB"), ROOT.parent / "shared" / "imdb"):
        if folder and (Path(folder) / "test.parquet").exists():
            return Path(folder)
    return None


@pytest.mark.skipif(
    imdb() is None, reason="IMDB is not at hand: set SENTIMENT_IMDB to a folder with its parquet"
)
def test_the_app_agrees_with_the_committed_predictions(client: Client, store: Store) -> None:
    from sentiment_core.data.reviews import load_reviews

    run = store.run(None)
    evals = store.evals(run, "imdb")
    if "fine-tuned" not in evals:
        pytest.skip("no committed predictions of a fine-tuned model yet")
    texts = dict(load_reviews(str(imdb()), "test").frame[["review_id", "text"]].itertuples(index=False))
    for system, key in (("fine-tuned", "fine_tuned"), ("baseline-scored", "base")):
        if system not in evals:
            continue
        stored = read_predictions(evals[system].path).sample(REVIEWS, random_state=0)
        stored = stored[stored["review_id"].isin(texts.keys())]
        answers = client.predict([texts[i] for i in stored["review_id"]], api_name="/classify_batch")
        live = np.array([answer[f"{key}_p_positive"] for answer in answers])
        there = stored["p_positive"].to_numpy(float)
        assert np.abs(live - there).mean() <= 0.01, (system, np.abs(live - there).mean())
        clear = np.abs(there - 0.5) > 0.02  # nearer to the middle, rounding may turn the label
        assert ((live >= 0.5) == (there >= 0.5))[clear].mean() >= 0.995, system
