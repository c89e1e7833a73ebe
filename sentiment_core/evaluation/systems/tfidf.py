"""TF-IDF of 1- and 2-grams with logistic regression, fitted on the train rows; no language model in it."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sentiment_core.evaluation.inputs import safe_name
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work
from sentiment_core.labels import Label

TFIDF_SETTINGS: dict = {"ngram_range": [1, 2], "min_df": 2, "sublinear_tf": True, "strip_accents": "unicode"}
LOGREG_SETTINGS: dict = {"C": 10.0, "solver": "liblinear", "random_state": 0, "max_iter": 1000}
CHUNK = 2_000  # reviews answered at once


class Tfidf(EvaluatedSystem):
    """Fitted anew for every evaluation."""

    on_devices = False

    @property
    def origin(self) -> str:
        return safe_name(self.inputs.train_split.train.name)

    def decisive(self) -> dict[str, Any]:
        fingerprint = self.inputs.train_split.train.fingerprint
        own = {"train_fingerprint": fingerprint, "tfidf": TFIDF_SETTINGS, "logreg": LOGREG_SETTINGS}
        return super().decisive() | own

    def work(self) -> Work:
        train, texts = self.inputs.train_split.train, self.inputs.test.reviews.texts
        self.inputs.say(f"Fitting TF-IDF and logistic regression on {len(train):,} reviews …")
        started = time.perf_counter()
        model = tfidf_logreg().fit(train.texts, train.labels)
        settings = {
            "train_source": train.source, "train_reviews": len(train), "tokens_of": self.inputs.base.name,
            "fit_seconds": round(time.perf_counter() - started, 2), "features": len(model[0].vocabulary_),
        }  # fmt: skip
        return Work(lambda rows: stream(model, [texts[row] for row in rows]), width=1, settings=settings)


def tfidf_logreg():
    """An unfitted scikit-learn pipeline from texts to the probability of each label."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(**TFIDF_SETTINGS | {"ngram_range": tuple(TFIDF_SETTINGS["ngram_range"])})
    return make_pipeline(words, LogisticRegression(**LOGREG_SETTINGS))


def stream(model, texts: Sequence[str]) -> Parts:
    """Values: (rows, 1) P(positive)."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield np.arange(start, start + len(chunk)), model.predict_proba(chunk)[:, [Label.POSITIVE]]
