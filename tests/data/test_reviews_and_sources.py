"""Reviews from every kind of source, every refusal's sentence, subsets and exclusions; no network."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_core.data import sources, tables
from sentiment_core.data.reviews import (
    DataError,
    load_reviews,
    match_key,
    review_id,
    split_train,
)
from tests import imdb

PROJECT = Path(__file__).resolve().parents[2]
TEXTS = [
    "A dull hour.<br /><br />I left.",
    "Grey soup, and cold.",
    "Nobody laughed. Not once.",
    "A joy from start to finish!",
    "Warm & witty — “lovely”.",
    "I'd see it again, café and all.",
]
LABELS = [0, 0, 0, 1, 1, 1]


def table(n: int = 6, **columns) -> pd.DataFrame:
    """`n` reviews of our own, negative first; a third of the longer tables is positive."""
    if n == 6:
        texts, labels = TEXTS, LABELS
    else:
        labels = [0] * (n - n // 3) + [1] * (n // 3)
        texts = [f"Review {i}: {'fun' if label else 'a bore'}." for i, label in enumerate(labels)]
    return pd.DataFrame({"text": texts, "label": labels, **columns})


def write(path: Path, frame: pd.DataFrame) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    else:
        lines = (json.dumps(row, ensure_ascii=False) for row in frame.to_dict("records"))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- shape and ids


def test_shape_ids_and_line_breaks(tmp_path):
    path = write(tmp_path / "mine.parquet", table(version=list("aabbcc"), pair_id=range(6)))
    reviews = load_reviews(path, "test")
    assert list(reviews.frame.columns) == ["text", "label", "review_id", "split", "version", "pair_id"]
    assert (reviews.source, reviews.name, reviews.split, len(reviews)) == ("mine.parquet", "mine", "test", 6)
    assert reviews.texts == ["A dull hour.\n\nI left.", *TEXTS[1:]]
    assert reviews.labels.dtype == np.int8
    assert reviews.labels.tolist() == LABELS
    assert set(reviews.frame["split"]) == {"test"}
    assert reviews.ids == [hashlib.sha256(text.encode()).hexdigest()[:16] for text in TEXTS]


def test_fingerprint_follows_ids_and_order(tmp_path):
    reviews = load_reviews(write(tmp_path / "a.csv", table()), "train")
    again = load_reviews(write(tmp_path / "b.jsonl", table()), "test")
    expected = hashlib.sha256("\n".join(reviews.ids).encode()).hexdigest()[:16]
    assert reviews.fingerprint == again.fingerprint == expected
    taken = reviews.take(np.array([4, 0]))
    assert taken.fingerprint != reviews.take([0, 4]).fingerprint
    assert taken.texts == [reviews.texts[4], reviews.texts[0]]
    assert taken.frame.index.tolist() == [0, 1]
    assert (taken.name, taken.source, taken.split) == (reviews.name, reviews.source, reviews.split)


# ---- every kind of source


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("names", [("neg", "pos"), ("Negative", "Positive"), ("0", "1"), (0, 1), (0.0, 1.0)])
def test_files_and_label_spellings(tmp_path, suffix, names):
    frame = table().assign(label=[names[label] for label in LABELS])
    reviews = load_reviews(write(tmp_path / f"r.{suffix}", frame), "test")
    assert reviews.labels.tolist() == LABELS
    assert reviews.ids == [review_id(text) for text in TEXTS]


def test_a_file_with_a_split_column_is_filtered(tmp_path):
    path = write(tmp_path / "r.csv", table(split=["train", "test"] * 3))
    assert load_reviews(path, "test").ids == [review_id(text) for text in TEXTS[1::2]]
    assert [*load_reviews(path, "test").frame.columns[4:]] == []
    assert refusal(load_reviews, path, "dev") == f"{path} has no split 'dev'; use one of: train, test"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_folder_of_files_named_by_split(tmp_path, suffix):
    write(tmp_path / "films" / f"train.{suffix}", table(9))
    write(tmp_path / "films" / f"test.{suffix}", table())
    (tmp_path / "films" / "notes.md").write_text("not reviews")
    train, test = (load_reviews(str(tmp_path / "films"), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 6)
    assert (test.name, test.source, test.split) == ("films", "films", "test")


def test_folder_as_downloaded_from_the_hub_in_shards(tmp_path):
    write(tmp_path / "train-00001-of-00002.parquet", table().iloc[3:])
    write(tmp_path / "train-00000-of-00002.parquet", table().iloc[:3])
    reviews = load_reviews(str(tmp_path), "train")
    assert reviews.ids == [review_id(text) for text in TEXTS]
    assert [*reviews.frame.columns[4:]] == []


def test_line_breaks_and_marks_that_belong_to_the_text(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes('\ufefftext,label\n"NA, one said.\nNo more.",neg\nNull points? No: bliss,pos\n'.encode())
    assert load_reviews(str(path), "test").texts == ["NA, one said.\nNo more.", "Null points? No: bliss"]
    odd = "Grey\u2028soup\x85again"
    path = write(tmp_path / "r.jsonl", table().replace({"text": {TEXTS[1]: odd}}))
    assert load_reviews(path, "test").texts[1] == odd


def test_no_record_keeps_a_path_of_this_machine(tmp_path, monkeypatch):
    write(tmp_path / "films" / "test.csv", table())
    monkeypatch.chdir(tmp_path / "films")
    for given in (".", str(tmp_path / "films"), "../films", "../films/"):
        assert (load_reviews(given, "test").source, load_reviews(given, "test").name) == ("films", "films")
    assert load_reviews("../films/test.csv", "test").source == "test.csv"


# ---- the Hub


@pytest.mark.parametrize(
    ("names", "stored"), [(["neg", "pos"], LABELS), (["pos", "neg"], [1, 1, 1, 0, 0, 0]), (None, LABELS)]
)
def test_hub_id(monkeypatch, names, stored):
    features = {"label": types.SimpleNamespace(names=names)} if names else {}
    part = types.SimpleNamespace(features=features, to_pandas=table().assign(label=stored).copy)
    asked = []

    def load_dataset(source, config):
        asked.append((source, config))
        return {"train": part, "test": part}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    named = load_reviews("owner/films?text_column=text&dataset_config=short", "test")
    assert (named.source.partition("?")[0], named.name) == ("owner/films", "films-short")
    assert load_reviews("imdb", "test").source == "stanfordnlp/imdb", "as runs recorded a local copy"
    assert asked == [("owner/films", "short"), ("stanfordnlp/imdb", None)]
    reviews = load_reviews("owner/films", "test")
    assert (reviews.source, reviews.name) == ("owner/films", "films")
    assert reviews.labels.tolist() == LABELS
    message = refusal(load_reviews, "owner/films", "dev")
    assert message == "owner/films has no split 'dev'; use one of: train, test"


@pytest.mark.slow
def test_the_real_library_loads_from_its_cache_offline(tmp_path):
    """In a process of its own: fill the cache, cut the network off, and load by Hub id."""
    write(tmp_path / "tiny" / "train.parquet", table())
    script = """
        import sys
        from pathlib import Path
        import datasets
        from sentiment_core.data.reviews import DataError, load_reviews
        root = Path(sys.argv[1])
        datasets.load_dataset(str(root / "tiny"))
        (root / "cache" / "tiny").rename(root / "cache" / "owner___tiny")  # as if it had come from the Hub
        print(len(load_reviews("owner/tiny", "train")))
        try:
            load_reviews("owner/absent", "train")
        except DataError as error:
            print(error)
    """
    caches = {"HF_HOME": str(tmp_path / "home"), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], cwd=tmp_path,
        env=os.environ | caches | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, message = done.stdout.strip().split("\n")
    assert count == "6"
    assert message.startswith("owner/absent is not a local path and could not be loaded from the Hub (")
    assert message.endswith("or give a local file or folder instead")


# ---- refusals


def test_refuses_what_is_not_there(tmp_path):
    for missing in (str(tmp_path / "none.csv"), "films.parquet", "./films"):
        message = refusal(load_reviews, missing, "test")
        assert message.startswith(f"{missing} is not there; check the path, or use a")
    assert refusal(load_reviews, "", "test").startswith("'' names no reviews; use a Hub id")


def test_refuses_a_folder_without_reviews_and_a_split_given_twice(tmp_path):
    assert "has no reviews in it; put train and test there" in refusal(load_reviews, str(tmp_path), "test")
    write(tmp_path / "test.csv", table())
    write(tmp_path / "test.jsonl", table())
    assert refusal(load_reviews, str(tmp_path), "test") == (
        f"{tmp_path} has the split 'test' more than once (test.csv, test.jsonl); keep one of them"
    )


def changed(column: str, row: int, value: object) -> pd.DataFrame:
    frame = table().astype({column: object})
    frame.at[row, column] = value
    return frame


REFUSED: list[tuple[str, bytes | pd.DataFrame, str]] = [
    ("a.xlsx", b"PK", " is of a kind that cannot be read (.xlsx); use a Hub id, a .parquet"),
    ("a.csv", table().set_axis(["review", "sentiment"], axis=1),
     " lacks the columns text, label (found: review, sentiment); rename or add them"),
    *(("a.jsonl", changed("label", 2, label),
       f", row 3: unknown label {label!r}; use 0/1, neg/pos or negative/positive")
      for label in (-1, "good", 2)),
    *(("a.parquet", changed("text", 4, text), " has an empty text in row 5; remove the row or fill it in")
      for text in ("", "  \n", "<br /><br />", None)),
    ("b.jsonl", changed("text", 0, 7), " has 7 in place of a text in row 1; put the review there"),
    ("b.parquet", pd.DataFrame({"text": [["a", "b"], ["c"]], "label": [0, 1]}),
     "has list<element: string> in its column 'text'; leave"),
    ("c.parquet", changed("text", 1, "a\0b"), " has a NUL character in row 2; remove it from the text"),
    ("b.csv", "text,label\nA bore,0\nA café,1\n".encode("latin-1"),
     " holds bytes that are not UTF-8 in line 3 (0xe9); save it as UTF-8"),
    ("c.jsonl", b'{"text": "whole \\ud83d\\ude00", "label": 1}\n{"text": "half \\ud83d", "label": 0}\n',
     " holds half a character that is not UTF-8 in line 2; correct it there"),
    ("c.csv", table().iloc[:3], " has only negative reviews in test; both classes are needed, so add"),
    ("d.csv", table().iloc[:0], " has no reviews in test"),
    ("d.parquet", b"PAR1 no", "cannot be read"),
    ("e.csv", b"text,label\nDull, grey,0\nFun,1\n", ", line 2: 3 cells, and the header has 2; put"),
    ("f.csv", b'text,label\n"Fun,\nsaid I",1\n\nDull, grey,0\n', ", line 5: 3 cells, and the header"),
    ("g.csv", b"text,label\nFun,1\nDull\n", ", line 3: 1 cells, and the header has 2"),
    ("h.csv", b"text\nGood film, but long\n", ", line 2: 2 cells, and the header has 1; put quotes"),
    ("i.csv", b'text,label\nFun,1\n"Dull,0\nGrey,0\n', "line 3, cannot be read as CSV (unexpected end"),
    ("j.csv", b"text,text,label\nFun,fun,1\n", "3 columns of 2 different names; use at most 1000, each"),
    ("k.csv", b"", "cannot be read as CSV (it is empty); begin it with a header"),
    ("l.csv", b"text,label\nFu\0n,1\n", ", line 2: a NUL character; save the file as UTF-8"),
    ("m.csv", "text,label\nFun,1\n".encode("utf-16-le"), ", line 1: a NUL character"),
    ("n.csv", b'text,label\nFun,1\n"Fun" it was,1\n', ", line 3, cannot be read as CSV (',' expected"),
    ("o.csv", b"text,label\n" + b"x" * 9_000_000, ", line 2: more than 8,388,608 bytes; break it up"),
    ("p.csv", b'text,label\n"Dull,1\n' + b"Grey,0\n" * 200_000, ", line 2, cannot be read as CSV (field"),
    ("a.tsv", b"text\tlabel\nFun\t1\nDull\tgrey\t0\n", ", line 3: 3 cells, and the header has 2; put quotes"),
    ("f.jsonl", b'{"text": ' + b"[" * 100_000, ", line 1: maximum recursion depth exceeded"),
    ("g.jsonl", b'{"text": "Fun", "label": [1]}', ", line 1: a list or an object under 'label'"),
    ("h.jsonl", b'{"text": "Fun", "text": "Dull"}', ", line 1: the same name twice in an object"),
    ("i.jsonl", b'{"label": ' + b"1" * 5000 + b"}", ", line 1: Exceeds the limit (4300 digits)"),
    ("d.jsonl", b'{"text": "Fun", "label": 1}\n{"text": \n', ", line 2: Expecting value; correct the JSON"),
    ("e.jsonl", b"[1]\n", ", line 1: not an object; write it as"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), REFUSED, ids=[one[0] for one in REFUSED])
def test_a_refusal_names_the_file_the_place_and_the_remedy(tmp_path, name, content, expected):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    message = refusal(load_reviews, str(path), "test")
    assert message.startswith(str(path))
    assert expected in message


def test_refuses_bytes_that_are_not_utf8_in_a_table(tmp_path):
    path = Path(write(tmp_path / "r.parquet", table()))
    path.write_bytes(path.read_bytes().replace("café".encode(), b"caf\xe9\xe9"))
    assert f"{path} holds bytes that are not UTF-8" in refusal(load_reviews, str(path), "test")


def test_refuses_more_reviews_than_there_are_and_fewer_than_two(tmp_path):
    path = write(tmp_path / "r.csv", table())
    assert refusal(load_reviews, path, "test", limit=7) == (
        "r.csv has 6 test reviews to draw from, fewer than --limit 7; ask for at most 6"
    )
    assert refusal(load_reviews, path, "test", limit=1) == (
        "--limit 1 cannot hold both classes; ask for 2 or more"
    )
    assert "fewer than validation 1000; ask for at most 6" in refusal(split_train, path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text,label\n" + b"," * 100_000 + b"\n", "line 2: 100001 cells, and the header has 2"),
        (b"text" + b"," * 100_000 + b"\n", "100001 columns of 100001 different names; use at most 1000"),
        (b"," * 99 + (b"\n" + b"," * 99) * 1_000, "1,000 rows of 100 columns, beyond 99,999 cells; split it"),
    ],
)
def test_commas_are_counted_and_never_become_columns(tmp_path, monkeypatch, content, expected):
    monkeypatch.setattr(tables, "_CELLS", 99_999)
    (tmp_path / "r.csv").write_bytes(content)
    tracemalloc.start()
    message = refusal(load_reviews, str(tmp_path / "r.csv"), "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expected in message
    assert peak < 200 * len(content), "bytes for each comma; 4,000 when each became a column"


def bomb(path: Path, text: pa.Array, n: int) -> None:
    labels = pa.array(np.arange(n, dtype="int8") % 2)
    table, coded = pa.table({"text": text, "label": labels}), pa.types.is_dictionary(text.type)
    pq.write_table(table, path, compression="zstd", use_dictionary=coded)


def repeated(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, "int32")), pa.array([text]))


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        (repeated("x" * 3_000_000, 1000), 1000, "has a cell of 3,000,000 bytes in 'text'; shorten it"),
        (repeated("x" * 900_000, 500), 500, "unpacks to more bytes than it says"),
        (pa.array(["x" * 1_000_000, "y" * 1_000_000] * 60), 120, "unpacks to more than 100,000,000 bytes"),
        (pa.nulls(60_000), 60_000, "60,000 rows of 2 columns, beyond 100,000 cells; split it"),
    ],
)
def test_a_parquet_that_unpacks_to_much_is_refused_before_it_does(tmp_path, monkeypatch, text, n, expected):
    bomb(tmp_path / "r.parquet", text, n)
    fewer = tables.read_parquet.__kwdefaults__ | {"most": 100_000_000}
    monkeypatch.setattr(tables.read_parquet, "__kwdefaults__", fewer)
    monkeypatch.setattr(tables, "_CELLS", 100_000)
    before = pa.total_allocated_bytes()
    assert expected in refusal(load_reviews, str(tmp_path / "r.parquet"), "test")
    assert pa.default_memory_pool().max_memory() - before < 1_000_000_000


def test_refuses_what_is_no_file_or_too_large_a_one_before_opening_it(tmp_path):
    for name in ("r.csv", "r.parquet"):
        os.mkfifo(tmp_path / name)
        assert f"{name} is not a file; use a Hub id" in refusal(load_reviews, str(tmp_path / name), "test")
    (tmp_path / "r.jsonl").touch()
    os.truncate(tmp_path / "r.jsonl", 20 << 30)
    assert "is too large (21,474,836,480 bytes" in refusal(load_reviews, str(tmp_path / "r.jsonl"), "test")


def test_columns_that_every_line_adds_are_refused(tmp_path):
    (tmp_path / "r.jsonl").write_text("".join(f'{{"column {i}": 1}}\n' for i in range(2000)))
    assert "1001 columns of 1001 different names" in refusal(load_reviews, str(tmp_path / "r.jsonl"), "test")


# ---- subsets


def test_limit_is_stratified_seeded_nested_and_in_order(tmp_path):
    path = write(tmp_path / "r.parquet", table(300))  # 200 negative, 100 positive
    whole = load_reviews(path, "test").ids
    small, large = (load_reviews(path, "test", limit=n, seed=3) for n in (30, 90))
    assert (small.labels.sum(), large.labels.sum()) == (10, 30)
    assert small.ids == load_reviews(path, "test", limit=30, seed=3).ids
    assert small.ids != load_reviews(path, "test", limit=30, seed=4).ids
    assert set(small.ids) < set(large.ids)
    assert [i for i in whole if i in set(large.ids)] == large.ids
    assert load_reviews(path, "test", limit=300).ids == whole


# ---- train, validation, exclusions


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("It's GREAT.", "its great"),
        ("one<br />two", "one two"),
        ("one<BR/>two", "one\n\ntwo"),
        ("Tom &amp; Ann", "Tom & Ann"),
        ("“Lovely” — café…", '"lovely" - café...'),
    ],
)
def test_match_key_overlooks_form(left, right):
    assert match_key(left) == match_key(right)


def test_match_key_tells_words_apart_in_any_script():
    texts = ["good", "goods", "café", "cafe", "很好", "不好", "хорошо", "!!!", "???"]
    assert len({match_key(text) for text in texts}) == len(texts)


def films(tmp_path: Path) -> str:
    """60 train reviews: one more stands in test, one is there twice (in capitals), two in `unseen`."""
    test = {"text": ["In both.<br />Yes.", "Test only: fun.", "Twice in test."], "label": [0, 1, 1]}
    odd = {"text": ["In both.<br />Yes.", "REVIEW 5:  a bore", "Unseen &amp; fun", "unseen: dull."]}
    test, odd = pd.DataFrame(test), pd.DataFrame(odd | {"label": [0, 0, 1, 0]})
    write(tmp_path / "films" / "train.parquet", pd.concat([table(60), odd]))
    write(tmp_path / "films" / "test.parquet", pd.concat([test, test.iloc[2:]]))
    return str(tmp_path / "films")


def test_split_train_drops_counts_and_records(tmp_path):
    unseen = pd.DataFrame({"text": ["unseen & FUN!", "Unseen, dull", "elsewhere"], "version": list("oee")})
    path = write(tmp_path / "pairs.csv", unseen)  # without labels: they are not needed here
    source = films(tmp_path)
    cut = split_train(source, validation=12, exclude=[path])
    assert cut.excluded == {"in_test_split": 1, "in_pairs": 2, "duplicate": 1}
    assert (len(cut.train), len(cut.validation)) == (48, 12)
    kept = {match_key(text) for text in cut.train.texts + cut.validation.texts}
    assert len(kept) == 60
    assert not kept & {match_key(text) for text in ["In both. Yes.", "unseen fun", "unseen dull"]}
    assert cut.train.name == cut.validation.name == "films"
    assert cut.train.split == cut.validation.split == "train"
    train, test = (set(load_reviews(source, split).ids) for split in ("train", "test"))
    assert train & test == {review_id("In both.<br />Yes.")}, "of the raw text"


def test_exclude_takes_every_split_of_a_folder(tmp_path):
    write(tmp_path / "other" / "a.csv", table(60).iloc[:6])
    write(tmp_path / "other" / "b.jsonl", table(60).iloc[58:])
    cut = split_train(films(tmp_path), validation=0, exclude=[str(tmp_path / "other")])
    assert cut.excluded["in_other"] == 8 + 1  # review 5's double goes for the same reason
    assert len(cut.validation) == 0
    assert len(cut.train) == 64 - 1 - 9


def test_validation_is_stratified_seeded_apart_and_independent_of_limit(tmp_path):
    source = films(tmp_path)
    cut, again, other = (split_train(source, validation=9, seed=seed) for seed in (1, 1, 2))
    assert cut.validation.ids == again.validation.ids != other.validation.ids
    assert cut.train.ids == again.train.ids
    assert not set(cut.train.ids) & set(cut.validation.ids)
    assert cut.validation.labels.sum() == 3
    limited = split_train(source, validation=9, seed=1, limit=10)
    assert limited.validation.ids == cut.validation.ids
    assert len(limited.train) == 10
    assert set(limited.train.ids) < set(cut.train.ids)
    assert "fewer than --limit 999" in refusal(split_train, source, validation=9, limit=999)


def test_split_train_refuses_when_a_class_is_gone(tmp_path):
    path = write(tmp_path / "unseen.csv", table().iloc[3:])
    source = write(tmp_path / "r.csv", table())
    assert refusal(split_train, source, validation=0, exclude=[path]) == (
        f"{source}: train lacks a class after dropping {{'in_test_split': 0, 'in_unseen': 3, 'duplicate': 0}}"
        " and 0 for validation; exclude or hold out fewer reviews"
    )
    assert "and 6 for validation" in refusal(split_train, source, validation=6)


# ---- the counterfactual pairs, fetched


def address(path: Path) -> str:
    return f"file://localhost{path.as_posix()}"


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A stand-in for the pinned file, at an address of its own, and an empty cache."""
    rows = ["Sentiment\tText\tbatch_id", "Negative\tReview 5: a bore.\t7", "Positive\tReview 5: a joy.\t7"]
    (tmp_path / "web.tsv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sources, "_COUNTERFACTUAL_URL", address(tmp_path / "web.tsv"))
    digest = hashlib.sha256((tmp_path / "web.tsv").read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "_COUNTERFACTUAL_SHA256", {"test": digest, "train": digest})
    return tmp_path / "web.tsv"


def test_counterfactual_is_fetched_once_checked_and_named_as_before(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reviews = load_reviews("counterfactual", "test")
    assert (reviews.name, reviews.source) == ("counterfactual_imdb_test", "counterfactual")
    assert [*reviews.frame.columns[4:]] == ["pair_id", "version"]
    assert reviews.frame["pair_id"].tolist() == [7, 7]
    web.unlink()  # offline from now on
    (kept,) = (tmp_path / "cache" / "data").iterdir()
    for name in ("counterfactual", "counterfactual_imdb_test.parquet"):  # the latter: as runs recorded it
        cut = split_train(films(tmp_path), validation=0, exclude=[name])
        assert cut.excluded["in_counterfactual_imdb_test"] == 2
    kept.write_bytes(kept.read_bytes()[:-9])
    assert "could not be fetched (" in refusal(load_reviews, "counterfactual", "test")
    local = write(tmp_path / "counterfactual_imdb_test.parquet", table())
    assert len(load_reviews(local, "test")) == 6, "a local copy is taken"


def test_a_counterfactual_file_that_is_not_the_pinned_one_is_refused_and_not_kept(web, tmp_path):
    web.write_text("Sentiment\tText\tbatch_id\n")
    message = refusal(load_reviews, "counterfactual", "test")
    assert "differs from expected" in message
    assert message.endswith(f"go online once, or put {address(web)} into {tmp_path / 'cache' / 'data'}")
    assert list((tmp_path / "cache" / "data").iterdir()) == []


# ---- the real dataset, where it is at hand


@imdb.needed
def test_the_pinned_file_is_the_copy_that_artifacts_were_made_from(tmp_path, monkeypatch):
    folder = imdb.FOLDER.parent / "robustness"
    if not (folder / "test_paired.tsv").exists():
        pytest.skip("the pinned file is not at hand")
    monkeypatch.setattr(sources, "CACHE", tmp_path)
    monkeypatch.setattr(sources, "_COUNTERFACTUAL_URL", address(folder / "test_paired.tsv"))
    fetched = load_reviews("counterfactual", "test")
    pd.testing.assert_frame_equal(
        fetched.frame, load_reviews(str(folder / "counterfactual_imdb_test.parquet"), "test").frame
    )
    predictions = (
        PROJECT / "assets/evals/counterfactual_imdb_test--fine-tuned--smollm2-135m/predictions.parquet"
    )
    columns = ["review_id", "label", "pair_id", "version"]
    committed = pd.read_parquet(predictions, columns=columns)
    assert fetched.frame[columns].values.tolist() == committed.values.tolist()


@imdb.needed
def test_imdb_overlaps_and_exclusions(tmp_path):
    folder = imdb.FOLDER
    train, test = (set(load_reviews(str(folder), split).ids) for split in ("train", "test"))
    assert len(train & test) == 123
    cut = split_train(str(folder))
    assert cut.excluded == {"in_test_split": 123, "duplicate": 99}
    assert (len(cut.train), len(cut.validation), int(cut.validation.labels.sum())) == (23778, 1000, 502)
    pairs = folder.parent / "robustness" / "counterfactual_imdb_test.parquet"
    if pairs.exists():
        frame = pd.read_parquet(pairs)
        originals = frame[frame["version"] == "original"]
        keys = {match_key(text) for text in load_reviews(str(folder), "train").texts}
        assert sum(match_key(text) in keys for text in originals["text"]) == len(originals) == 488
        cut = split_train(str(folder), exclude=[str(pairs)])
        assert cut.excluded == {"in_test_split": 123, "in_counterfactual_imdb_test": 490, "duplicate": 96}
        kept = {match_key(text) for text in cut.train.texts + cut.validation.texts}
        assert not kept & {match_key(text) for text in frame["text"]}
    if (folder / "unsupervised.parquet").exists():
        message = refusal(load_reviews, str(folder), "unsupervised")
        assert (
            message
            == f"{folder}, row 1: unknown label -1; use 0/1, neg/pos or negative/positive, or --label-map"
        )
