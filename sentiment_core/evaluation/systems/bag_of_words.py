"""Linear models on 1- and 2-grams, fitted anew for every evaluation; no language model in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from sentiment_core.evaluation.inputs import safe_name
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work
from sentiment_core.labels import Label

TFIDF_SETTINGS: dict = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True, "strip_accents": "unicode"}
LOGREG_SETTINGS: dict = {"C": 10.0, "solver": "liblinear", "random_state": 0, "max_iter": 1000}
NBSVM_SETTINGS: dict = {"ngram_range": (1, 2), "alpha": 1.0, "C": 1.0, "beta": 0.25, "random_state": 0}
"""The paper's own values; nothing was tried."""
CHUNK = 2_000
"""Reviews answered at once."""


class BagOfWords(EvaluatedSystem):
    """Args of a subclass: `own`, the settings that decide its fit; `fitted(texts, labels)`, its model."""

    on_devices = False
    own: ClassVar[dict[str, Any]]
    fitted: Callable[[Sequence[str], np.ndarray], Any]

    @property
    def origin(self) -> str:
        return safe_name(self.inputs.train_split.train.name)

    def decisive(self) -> dict[str, Any]:
        fingerprint = self.inputs.train_split.train.fingerprint
        return super().decisive() | {"train_fingerprint": fingerprint} | self.own

    def work(self) -> Work:
        train, texts = self.inputs.train_split.train, self.inputs.test.reviews.texts
        self.inputs.say(f"Fitting {self.id} on {len(train):,} reviews …")
        started = time.perf_counter()
        predict_proba, features = self.fitted(train.texts, train.labels)
        settings = {
            "train_source": train.source, "train_reviews": len(train), "tokens_of": self.inputs.base.name,
            "fit_seconds": round(time.perf_counter() - started, 2), "features": features,
        }  # fmt: skip
        return Work(lambda rows: stream(predict_proba, texts, rows), width=1, settings=settings)


Fitted = tuple[Callable[[Sequence[str]], np.ndarray], int]
"""texts -> (n, 2) probabilities of negative and positive; number of features."""


def tfidf_logreg(texts: Sequence[str], labels: np.ndarray) -> Fitted:
    """TF-IDF with logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(**TFIDF_SETTINGS)
    model = make_pipeline(words, LogisticRegression(**LOGREG_SETTINGS)).fit(texts, labels)
    return model.predict_proba, len(words.vocabulary_)


def nbsvm(texts: Sequence[str], labels: np.ndarray) -> Fitted:
    """Linear SVM on word presence scaled by naive Bayes log-count ratios, weights drawn to their mean.

    Wang & Manning 2012, Baselines and Bigrams. It states no probability: what stands for one is the logistic
    function of its margin, which is not calibrated.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.svm import LinearSVC

    alpha, beta = NBSVM_SETTINGS["alpha"], NBSVM_SETTINGS["beta"]
    words = CountVectorizer(ngram_range=NBSVM_SETTINGS["ngram_range"], binary=True)
    present = words.fit_transform(texts)  # (n, features)
    positive, negative = (
        alpha + np.asarray(present[labels == label].sum(axis=0), dtype=float)[0] for label in (1, 0)
    )
    ratio = np.log(positive / positive.sum()) - np.log(negative / negative.sum())  # (features,)
    svm = LinearSVC(C=NBSVM_SETTINGS["C"], random_state=NBSVM_SETTINGS["random_state"])
    svm.fit(present.multiply(ratio).tocsr(), labels)
    weights = ratio * ((1 - beta) * np.abs(svm.coef_[0]).mean() + beta * svm.coef_[0])

    def predict_proba(texts: Sequence[str]) -> np.ndarray:
        p = expit(words.transform(texts) @ weights + svm.intercept_[0])
        return np.stack((1 - p, p), axis=1)

    return predict_proba, len(ratio)


class Tfidf(BagOfWords):
    own: ClassVar = {"tfidf": TFIDF_SETTINGS, "logreg": LOGREG_SETTINGS}
    fitted = staticmethod(tfidf_logreg)


class Nbsvm(BagOfWords):
    own: ClassVar = {"nbsvm": NBSVM_SETTINGS}
    fitted = staticmethod(nbsvm)


def stream(predict_proba: Callable, texts: Sequence[str], rows: np.ndarray) -> Parts:
    """Values: (rows, 1) P(positive)."""
    for start in range(0, len(rows), CHUNK):
        chunk = [texts[row] for row in rows[start : start + CHUNK]]
        yield np.arange(start, start + len(chunk)), predict_proba(chunk)[:, [Label.POSITIVE]]
