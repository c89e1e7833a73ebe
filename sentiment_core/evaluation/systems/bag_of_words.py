"""Linear models on 1- and 2-grams, fitted anew for every evaluation; no language model in them."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sentiment_core.evaluation.inputs import safe_name
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work
from sentiment_core.labels import Label

Fitted = tuple[Callable[[Sequence[str]], np.ndarray], int]
"""texts -> (n, 2) probabilities of negative and positive; number of features."""


class BagOfWords(EvaluatedSystem):
    on_devices = False
    own: ClassVar[dict[str, Any]]  # the settings that decide the fit, n-grams as JSON keeps them

    @abstractmethod
    def fitted(self, texts: Sequence[str], labels: np.ndarray) -> Fitted:
        """A model of these reviews."""

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

        def stream(rows: np.ndarray) -> Parts:
            yield np.arange(len(rows)), predict_proba([texts[row] for row in rows])[:, [Label.POSITIVE]]

        return Work(stream, width=1, settings=settings)


class Tfidf(BagOfWords):
    own: ClassVar = {
        "tfidf": {"ngram_range": [1, 2], "min_df": 2, "sublinear_tf": True, "strip_accents": "unicode"},
        "logreg": {"C": 10.0, "solver": "liblinear", "random_state": 0, "max_iter": 1000},
    }

    def fitted(self, texts: Sequence[str], labels: np.ndarray) -> Fitted:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(**self.own["tfidf"] | {"ngram_range": (1, 2)})
        model = make_pipeline(words, LogisticRegression(**self.own["logreg"])).fit(texts, labels)
        return model.predict_proba, len(words.vocabulary_)


class Nbsvm(BagOfWords):
    """Logistic regression on the presence of n-grams, each scaled by its naive Bayes log-count ratio.

    Wang & Manning 2012, Baselines and Bigrams; with the logistic loss, as Mesnil et al. 2015 (Ensemble of
    Generative and Discriminative Techniques for Sentiment Analysis of Movie Reviews) ran it on IMDB. The
    settings are the authors' own; nothing was tried.
    """

    own: ClassVar = {
        "nbsvm": {"ngram_range": [1, 2], "token_pattern": r"\w+|[^\w\s]", "alpha": 1.0, "C": 1.0}
    }

    def fitted(self, texts: Sequence[str], labels: np.ndarray) -> Fitted:
        from scipy.sparse import diags_array
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import MultinomialNB

        own = self.own["nbsvm"]
        words = CountVectorizer(ngram_range=(1, 2), token_pattern=own["token_pattern"], binary=True)
        present = words.fit_transform(texts)  # (n, features)
        bayes = MultinomialNB(alpha=own["alpha"]).fit(present, labels)
        scale = diags_array(np.diff(bayes.feature_log_prob_, axis=0)[0], format="csr")
        model = LogisticRegression(C=own["C"], solver="liblinear", fit_intercept=False, random_state=0)
        model.fit(present @ scale, labels)
        return lambda new: model.predict_proba(words.transform(new) @ scale), len(words.vocabulary_)
