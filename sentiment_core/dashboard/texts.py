"""Review texts by id, from the dataset at hand. Artifacts carry none (they belong to their authors)."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from sentiment_core.config import CACHE
from sentiment_core.data.sources import CHALLENGE

log = logging.getLogger(__name__)

VARIABLE = "SENTIMENT_DATASET"
DEFAULT_SOURCE = "stanfordnlp/imdb"
IMDB: dict[str, Any] = {
    "filename": "plain_text/test-00000-of-00001.parquet", "repo_type": "dataset",
    "revision": "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", "local_dir": CACHE / "data" / "imdb",
}  # fmt: skip
"""Its test reviews on the Hub, and where they are kept once a visitor, or a Space, has fetched them."""
FETCH = "Load the IMDB texts (20 MB)"
FETCHING = "They are being fetched from the Hub at this moment; choose this tab again in a minute."
HOW_TO = (
    "To read them from a copy (a parquet or CSV file, or a folder; several are separated by your system's "
    f"path separator), set the environment variable {VARIABLE} to it and start the page again."
)


class ReviewTexts:
    """Loads in the background on first use; until then, and without a dataset, there are no texts."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts, self._lock, self._fetching = texts, threading.Lock(), threading.Lock()
        self._problem = ""
        self._loading = threading.Thread(target=self._load, name="review-texts", daemon=True)

    def wait(self, timeout: float) -> Mapping[str, str]:
        """The texts once loaded, or what is there after `timeout` seconds."""
        with self._lock:
            if self._loading.ident is None:
                self._loading.start()
        self._loading.join(timeout)
        return self._texts or {}

    def _load(self) -> None:
        if self._texts is None:
            self._texts = load_texts([CHALLENGE])
            self._texts |= load_texts(sources := _sources())
            if os.environ.get("SPACE_ID") and not sources:
                threading.Thread(target=self.fetch, name="imdb", daemon=True).start()

    def fetch(self, told: Callable[[float], object] = float) -> None:
        """Add IMDB's test reviews, from the Hub; `how_to` says why where that fails.
        told: gets the share that is done, now and then."""
        from huggingface_hub import hf_hub_download

        class Bar(tqdm):
            def update(self, n: float | None = 1) -> bool | None:
                told(min(1.0, (self.n + (n or 0)) / (self.total or 1)))
                return super().update(n)

        with self._fetching:
            try:
                found = load_texts([hf_hub_download(DEFAULT_SOURCE, **IMDB, token=False, tqdm_class=Bar)])
                self._problem = "" if found else "What the Hub gave cannot be read."
                self._texts = {**(self._texts or {}), **found}
            except Exception as error:  # the Hub's client has kinds of its own, by version
                reason = str(error).strip().partition("\n")[0].rstrip(".")[:200]
                self._problem = f"They could not be fetched from the Hub: {reason}."

    @property
    def how_to(self) -> str:
        """How to get the texts that are not at hand, after why the last try failed."""
        return FETCHING if self._fetching.locked() else f"{self._problem} {HOW_TO}".strip()


def _sources() -> list[str]:
    """The datasets named in the environment, else what was fetched before; asks nobody."""
    if given := os.environ.get(VARIABLE):
        return [part for part in given.split(os.pathsep) if part]
    fetched = IMDB["local_dir"] / IMDB["filename"]
    return [str(fetched)] if fetched.exists() else []


def load_texts(sources: list[str]) -> dict[str, str]:
    """review_id -> text of every source that can be read; a source that cannot is logged and left out."""
    from sentiment_core.data.reviews import load_reviews

    texts: dict[str, str] = {}
    for source in sources:
        try:
            frame = load_reviews(source, "test").frame
            texts |= zip(frame["review_id"], frame["text"], strict=True)
        except Exception as error:  # any loader's trouble only means: no texts from this source
            log.warning("no review texts from %s: %s", source, error)
    return texts
