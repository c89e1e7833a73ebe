"""Linear models on 1- and 2-grams, fitted anew for every evaluation; no language model in them."""

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sentiment_core.evaluation.inputs import safe_name
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work
from sentiment_core.labels import Label

NGRAMS = [1, 2]  # as JSON keeps them
TFIDF_SETTINGS: dict = {"ngram_range": NGRAMS, "min_df": 2, "sublinear_tf": True, "strip_accents": "unicode"}
LOGREG_SETTINGS: dict = {"C": 10.0, "solver": "liblinear", "random_state": 0, "max_iter": 1000}
NBSVM_SETTINGS: dict = {"ngram_range": NGRAMS, "token_pattern": r"\w+|[^\w\s]", "alpha": 1.0, "C": 1.0}
"""The authors' own values; nothing was tried."""
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
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(**TFIDF_SETTINGS | {"ngram_range": (NGRAMS[0], NGRAMS[1])})
    model = make_pipeline(words, LogisticRegression(**LOGREG_SETTINGS)).fit(texts, labels)
    return model.predict_proba, len(words.vocabulary_)


def nbsvm(texts: Sequence[str], labels: np.ndarray) -> Fitted:
    """Logistic regression on the presence of n-grams, each scaled by its naive Bayes log-count ratio.

    Wang & Manning 2012, Baselines and Bigrams; with the logistic loss, as Mesnil et al. 2015 (Ensemble of
    Generative and Discriminative Techniques for Sentiment Analysis of Movie Reviews) ran it on IMDB.
    """
    from scipy.sparse import diags_array
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    own = NBSVM_SETTINGS
    pattern = {"ngram_range": (NGRAMS[0], NGRAMS[1]), "token_pattern": own["token_pattern"]}
    words = CountVectorizer(**pattern, binary=True)
    present = words.fit_transform(texts)  # (n, features)
    scale = diags_array(log_count_ratio(present, labels, own["alpha"]), format="csr")
    model = LogisticRegression(C=own["C"], solver="liblinear", fit_intercept=False, random_state=0)
    model.fit(present @ scale, labels)
    return lambda new: model.predict_proba(words.transform(new) @ scale), len(words.vocabulary_)


def log_count_ratio(present: Any, labels: np.ndarray, alpha: float) -> np.ndarray:
    """(features,) log of how much likelier each is in a positive review; present: (n, features) 0 or 1."""
    counts = (np.asarray(present[labels == label].sum(axis=0), dtype=float).ravel() for label in (1, 0))
    positive, negative = (alpha + count for count in counts)
    return np.log(positive / positive.sum()) - np.log(negative / negative.sum())


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
