"""Labelled reviews from any source in one shape, with ids, stratified subsets and honest exclusions.

    load_reviews("stanfordnlp/imdb", "test", limit=1000)
    split_train("reviews/", validation=1000, exclude=["counterfactual.parquet"])

A source is a Hub id, a parquet/CSV/TSV/JSONL file, or a folder of such files by split. Every refusal is a
DataError of one sentence: what was wrong, the value, what to do.
"""

import hashlib
import html
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from sentiment_core.data.sources import BREAK, DataError, Source, open_source
from sentiment_core.labels import Label, parse_label

_CORE = ("text", "label", "review_id", "split")


def fingerprint(ids: Iterable[str]) -> str:
    """First 16 hex digits of SHA-256 over review ids in order, joined by newlines."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Reviews:
    """Labelled reviews in dataset order."""

    frame: pd.DataFrame
    """text (line breaks as newlines), label (int8; none in `unlabelled_reviews`), review_id, split, then the
    source's other columns, such as pair_id and version."""
    source: str  # the flag's value; for a local path its last name only
    name: str  # short: "imdb", or a file's stem
    split: str

    @property
    def texts(self) -> list[str]:
        """(n,) as the model and a reader see them."""
        return self.frame["text"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """(n,) int8, 0 = negative and 1 = positive."""
        return self.frame["label"].to_numpy()

    @property
    def ids(self) -> list[str]:
        """(n,) review ids; a text that stands twice has its id twice."""
        return self.frame["review_id"].tolist()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.ids)

    def __len__(self) -> int:
        return len(self.frame)

    def __add__(self, other: Self) -> Self:
        return replace(self, frame=pd.concat([self.frame, other.frame], ignore_index=True))

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        return replace(self, frame=self.frame.take(indices).reset_index(drop=True))


@dataclass(frozen=True, eq=False)
class TrainSplit:
    """A source's train split after exclusions, cut in two."""

    train: Reviews
    validation: Reviews
    excluded: dict[str, int]
    """Rows dropped, by reason: "in_test_split", "in_<name>" for each excluded source, "duplicate".
    A row counts once, for the first reason that holds; a reason that never held is there with 0.
    Those of `also` have its name before their reasons, to which "in_validation" and "in_train_split" come."""
    also: Reviews  # of another source, to learn from besides `train`


def review_id(text: str) -> str:
    """First 16 hex digits of SHA-256 of the text in UTF-8, exactly as the dataset gives it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_reviews(source: str, split: str, *, limit: int | None = None, seed: int = 0) -> Reviews:
    """Read one split of a source.

    Args:
        split: "train", "test" or what the source calls it. A single file is taken whole, unless it has a
            `split` column.
        limit: reviews to keep, drawn with the classes in the split's proportion and left in dataset order;
            for one seed, a smaller limit's reviews are among a larger one's.
    Raises DataError: no such file or split, missing columns, an unknown label, an empty text, bytes that are
    not UTF-8, a single class, fewer rows than `limit`, or the Hub cannot be reached.
    """
    reviews = _reviews(open_source(source), split)
    return reviews if limit is None else reviews.take(_stratified(reviews, limit, seed, "--limit"))


def split_train(
    source: str, *, validation: int = 1000, exclude: Sequence[str] = (), limit: int | None = None,
    seed: int = 0, also: str = "",
) -> TrainSplit:  # fmt: skip
    """Cut a source's train split into train and validation, after dropping what must stay unseen.

    Dropped are rows whose text also stands in the test split, in a source of `exclude` (all its splits and
    versions), or earlier in train; compared by `match_key`. The test split is read for that alone.

    Args:
        validation: reviews held out, stratified; they do not depend on `limit`. 0 holds out none.
        limit: train reviews to keep of the rest, stratified.
        also: a source of further labelled texts, which take nothing from validation: what of it stands in
            validation, in train, or must stay unseen is dropped and counted.
    Raises DataError: as load_reviews.
    """
    opened = open_source(source)
    train = _reviews(opened, "train")
    rows, excluded = _trainable(opened, train, exclude)
    kept = train.take(rows)
    held = _stratified(kept, validation, seed, "validation") if validation else np.empty(0, np.int64)
    rest = kept.take(np.setdiff1d(np.arange(len(kept)), held))
    if len(set(rest.labels.tolist())) < 2:
        raise DataError(
            f"{source}: train lacks a class after dropping {excluded} and {validation} for validation; "
            "exclude or hold out fewer reviews"
        )
    chosen = rest if limit is None else rest.take(_stratified(rest, limit, seed, "--limit"))
    split = TrainSplit(chosen, kept.take(held), excluded, chosen.take([]))
    if not also:
        return split
    known = {"in_validation": split.validation, "in_train_split": chosen}
    keys = {reason: {match_key(text) for text in part.texts} for reason, part in known.items()}
    rows, left = _trainable(opened, more := _reviews(open_source(also), "train"), exclude, **keys)
    excluded |= {f"{more.name}: {reason}": n for reason, n in left.items()}
    return replace(split, also=more.take(rows))


def unlabelled_reviews(
    source: str, where: str = "", *, exclude: Sequence[str] = (), limit: int | None = None, seed: int = 0
) -> tuple[Reviews, dict[str, int]]:
    """Train reviews, or those of another split or source `where`, without labels, which are not even read.

    Dropped, and counted, are those that stand in the source's test split, if not of train in its train split,
    in a source of `exclude`, or earlier; `limit` of the rest are drawn. The frame has no column `label`.
    Raises DataError: as load_reviews, but a source without labels will do.
    """
    opened = open_source(source)
    here = not where or where in opened.splits
    other, split = (opened, where or "train") if here else (open_source(where), "train")
    reviews = _reviews(other, split, labelled=False)
    more = {"in_train_split": _keys(opened, ("train",))} if where else {}
    rows, excluded = _trainable(opened, reviews, exclude, **more)
    if where and not len(rows):
        raise DataError(f"{where} has no review that {source} does not have, too; give other texts")
    return reviews.take(np.sort(np.random.default_rng(seed).permutation(rows)[:limit])), excluded


def _trainable(
    source: Source, train: Reviews, exclude: Sequence[str], **more: set[bytes]
) -> tuple[np.ndarray, dict[str, int]]:
    """Positions of the rows that may be learned from, and how many others, by reason (`more` ones too)."""
    unseen = {"in_test_split": _keys(source, ("test",)) if "test" in source.splits else set()} | more
    for path in exclude:
        other = open_source(path)
        unseen.setdefault(f"in_{other.name}", set()).update(_keys(other, other.splits or ("all",)))
    match_keys = pd.Series([match_key(text) for text in train.texts])
    reasons = {reason: match_keys.isin(keys) for reason, keys in unseen.items()}
    holds = pd.DataFrame(reasons | {"duplicate": match_keys.duplicated()})
    first = holds & (holds.cumsum(axis=1) == 1)
    return np.flatnonzero(~holds.any(axis=1)), {str(reason): int(n) for reason, n in first.sum().items()}


_ASCII_NOISE = (string.punctuation + string.whitespace).encode()
_NOISE = re.compile(r"[\W_]+")


def match_key(text: str) -> bytes:
    """What stays of a text without case, blanks, punctuation, `<br />` and HTML entities.

    >>> match_key("Tom &amp; Ann:<br />GREAT!") == match_key("tom & ann great")
    True
    """
    bare = BREAK.sub(" ", html.unescape(text)).lower()
    key = bare if bare.isascii() else _NOISE.sub("", bare)
    return key.encode().translate(None, _ASCII_NOISE) or text.encode()


def _keys(source: Source, splits: Iterable[str]) -> set[bytes]:
    """Keys of every text in these splits; labels are not looked at."""
    tables = (_table(source, split, "text") for split in splits)
    return {match_key(text) for raw in tables for text in _decoded(raw, source.given)}


def _stratified(reviews: Reviews, n: int, seed: int, flag: str) -> np.ndarray:
    """Sorted positions of `n` reviews, classes in their own proportion and each at least once."""
    if n < 2:
        raise DataError(f"{flag} {n} cannot hold both classes; ask for 2 or more")
    if n > len(reviews):
        raise DataError(
            f"{reviews.source} has {len(reviews)} {reviews.split} reviews to draw from, fewer than "
            f"{flag} {n}; ask for at most {len(reviews)}"
        )
    negative, positive = (np.flatnonzero(reviews.labels == label) for label in Label)
    n_positive = min(max(int(n * len(positive) / len(reviews) + 0.5), 1), n - 1)
    rng = np.random.default_rng(seed)
    parts = (rng.permutation(negative)[: n - n_positive], rng.permutation(positive)[:n_positive])
    return np.sort(np.concatenate(parts))


def _reviews(source: Source, split: str, *, labelled: bool = True) -> Reviews:
    """One split in the common shape, every row checked; without `labelled` its labels are not looked at."""
    raw = _table(source, split, *("text", "label")[: 1 + labelled])
    texts = _decoded(raw, source.given)
    columns: dict[str, Any] = {"text": [BREAK.sub("\n", text) for text in texts]}
    if labelled:
        columns["label"] = np.array(_labels(raw, source.given), dtype=np.int8)
    columns |= {"review_id": [review_id(text) for text in texts], "split": split}
    columns |= {str(column): raw[column].to_numpy() for column in raw.columns if column not in _CORE}
    frame = pd.DataFrame(columns)
    if labelled and frame["label"].nunique() < 2:
        found = f"only {Label(int(frame['label'][0])).word.lower()} reviews" if len(frame) else "no reviews"
        raise DataError(f"{source.given} has {found} in {split}; both classes are needed, so add the other")
    return Reviews(frame, source.shown, source.name, split)


def _table(source: Source, split: str, *columns: str) -> pd.DataFrame:
    """One split as the source has it, with these columns among others."""
    raw = source.read(split)
    if missing := ", ".join(column for column in columns if column not in raw):
        found = ", ".join(map(str, raw.columns)) or "none"
        raise DataError(f"{source.given} lacks the columns {missing} (found: {found}); rename or add them")
    return raw


def _decoded(raw: pd.DataFrame, given: str) -> list[str]:
    """The texts exactly as the source gives them; not one of them is empty."""
    texts, given_texts = [], raw["text"].astype(object).where(raw["text"].notna(), "")
    for row, text in zip(raw.index + 1, given_texts, strict=True):
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeError:
                message = f"{given} holds bytes that are not UTF-8 in row {row}; save it as UTF-8"
                raise DataError(message) from None
        if not isinstance(text, str):
            raise DataError(f"{given} has {text!r} in place of a text in row {row}; put the review there")
        if not BREAK.sub("", text).strip():
            raise DataError(f"{given} has an empty text in row {row}; remove the row or fill it in")
        if "\0" in text:
            raise DataError(f"{given} has a NUL character in row {row}; remove it from the text")
        texts.append(text)
    return texts


def _labels(raw: pd.DataFrame, given: str) -> list[int]:
    labels = []
    for row, value in zip(raw.index + 1, raw["label"], strict=True):
        try:
            labels.append(int(parse_label(value)))
        except ValueError as error:
            raise DataError(f"{given}, row {row}: {error}, or --label-map") from None
    return labels
