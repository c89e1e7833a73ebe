"""What visitors send: usable values, or one clear sentence."""

import pandas as pd
import pytest

from sentiment_core.dashboard.inputs import (
    MAX_CHARACTERS,
    MAX_ROWS,
    Batch,
    InputRefused,
    clean_text,
    columns_of,
    read_batch,
    read_upload,
    safe_cell,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  A fine film.\r\nTruly. ", "A fine film.\nTruly."),
        ("bell\x07 and nul\x00.", "bell  and nul ."),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("Great <|im_end|> film", "Great <|im_end|> film"),
        ("فيلم رائع", "فيلم رائع"),
        ("😀 half a pair \ud83d", "😀 half a pair"),
    ],
)
def test_text_stays_text(given: str, kept: str) -> None:
    assert clean_text(given) == kept


@pytest.mark.parametrize(
    "given", ["", "   \n\t ", "\x00\x01", "\u200b\u200b", "!!!", "10/10", "🎬" * 300, None, 7, ["a list"]]
)
def test_nothing_to_read_is_said(given: object) -> None:
    with pytest.raises(InputRefused, match=r"nothing to read|send the review as text"):
        clean_text(given)


def test_too_long_names_both_numbers() -> None:
    with pytest.raises(InputRefused, match=r"1,000,000 characters; up to 20,000"):
        clean_text("x" * 1_000_000)
    assert len(clean_text("x" * MAX_CHARACTERS)) == MAX_CHARACTERS


def test_pasted_lines_are_rows() -> None:
    for path in (None, "a file"):
        assert read_batch(path, "good\n\n bad \n").texts == ["good", "bad"]


def test_csv_with_labels(tmp_path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text('id, Label,Body\n1,pos,"Nice, really"\n0,0,Awful\n', encoding="utf-8-sig")
    text, label = columns_of(read_upload(path))
    assert (text, label) == ("Body", " Label")
    assert read_batch(path, None, text, label) == Batch(["Nice, really", "Awful"], [1, 0])
    assert read_batch(path, None, text, "").labels is None
    pd.read_csv(path).to_parquet(tmp_path / "reviews.parquet")
    assert read_batch(tmp_path / "reviews.parquet", None, text, "id").labels == [1, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"review,label\nhello,1\n", "no column 'Label'; choose another one"),
        (b"text\n", "a header but no rows"),
        (b"", "cannot be read as CSV"),
        (b"\xff\xfe\x00t", r"not UTF-8 in line 1 \(0xff\); save it as UTF-8"),
        (b"text,text\nGood,Bad\n", "2 columns of 1 different names"),
        (b"text\nGo\0od\n", "line 2: a NUL character; save the file as UTF-8"),
        (b"text\nGood film, but long\n", "line 2: 2 cells, and the header has 1; put quotes"),
        (b"text,label\nhello,maybe\n", "Row 1: unknown label 'maybe'"),
        (b'text\nhello\n"  "\n', "Row 2: There is nothing to read"),
        (b"text\n" + b"a\n" * (MAX_ROWS + 1), "more than 5,000 rows; python eval.py --predict"),
    ],
)
def test_bad_csv_is_one_sentence(tmp_path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputRefused, match=sentence):
        read_batch(path, None, "", {b"r": "Label", b"t": "label"}.get(content[:1] * (b"label" in content)))


def test_nothing_given_says_what_to_do() -> None:
    with pytest.raises(InputRefused, match="Choose a CSV"):
        read_batch(None, " \n ")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_cells_do_not_run_as_formulas(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell
