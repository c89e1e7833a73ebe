"""Review texts by id, from the dataset at hand. Artifacts carry none (they belong to their authors)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

log = logging.getLogger(__name__)

VARIABLE = "SENTIMENT_DATASET"
DEFAULT_SOURCE = "stanfordnlp/imdb"
HOW_TO = (
    f"Set the environment variable {VARIABLE} to a copy of the dataset (a parquet or CSV file, a folder, "
    f"or the "
    "raw aclImdb folder; several are separated by your system's path separator) and start the page again. "
    "With the Hugging Face copy in the local cache nothing needs to be set."
)


def load_texts(sources: list[str], *, split: str = "test") -> dict[str, str]:
    """review_id -> text of every source that can be read; a source that cannot is logged and left out."""
    from sentiment_core.data import load_reviews

    texts: dict[str, str] = {}
    for source in sources:
        try:
            frame = load_reviews(source, split).frame
        except Exception as error:  # any loader's trouble only means: no texts from this source
            log.warning("no review texts from %s: %s", source, error)
            continue
        texts.update(zip(frame["review_id"], frame["text"], strict=True))
    return texts


class ReviewTexts:
    """Loads in the background on first use; until then, and without a dataset, there are no texts."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts: Mapping[str, str] = texts or {}
        self._done = threading.Event()
        self._started = False
        self._lock = threading.Lock()
        if texts is not None:
            self._started = True
            self._done.set()

    def start(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
        threading.Thread(target=self._fill, name="review-texts", daemon=True).start()

    def _fill(self) -> None:
        try:
            given = os.environ.get(VARIABLE, "")
            if given:
                self._texts = load_texts([part for part in given.split(os.pathsep) if part])
            elif _in_hub_cache(DEFAULT_SOURCE):
                self._texts = load_texts([DEFAULT_SOURCE])
        except Exception:
            log.exception("review texts could not be loaded")
        finally:
            self._done.set()

    def wait(self, timeout: float) -> Mapping[str, str]:
        """The texts once loaded, or what is there after `timeout` seconds."""
        self.start()
        self._done.wait(timeout)
        return self._texts


def _in_hub_cache(repo: str) -> bool:
    """Whether the Hub's local cache holds the dataset; asks nobody."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = os.path.join(HF_HUB_CACHE, "datasets--" + repo.replace("/", "--"), "snapshots")
    return os.path.isdir(folder) and bool(os.listdir(folder))
