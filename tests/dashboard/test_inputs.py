"""What visitors send: usable values, or one clear sentence."""

import pytest

from sentiment_core.dashboard.inputs import (
    MAX_CHARACTERS,
    MAX_ROWS,
    InputRefused,
    clean_text,
    read_batch,
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
    assert read_batch(None, "good\n\n bad \n").texts == ["good", "bad"]


def test_csv_with_labels(tmp_path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text('Text, Label,note\n"Nice, really",pos,\nAwful,0,\n', encoding="utf-8-sig")
    batch = read_batch(path, None)
    assert batch.texts == ["Nice, really", "Awful"]
    assert batch.labels == [1, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"review\nhello\n", "no column named text; it has: review"),
        (b"text\n", "a header but no rows"),
        (b"", "cannot be read as CSV"),
        (b"\xff\xfe\x00t", r"not UTF-8 in line 1 \(0xff\); save it as UTF-8"),
        (b"Text,text\nGood,Bad\n", "the column text more than once; please keep one"),
        (b"text\nGo\0od\n", "line 2: a NUL character; save the file as UTF-8"),
        (b"text\nGood film, but long\n", "line 2: 2 cells, and the header has 1; put quotes"),
        (b"text,label\nhello,maybe\n", "Row 1: unknown label 'maybe'"),
        (b'text\nhello\n"  "\n', "Row 2: There is nothing to read"),
        (b"text\n" + b"a\n" * (MAX_ROWS + 1), "rows are too many"),
    ],
)
def test_bad_csv_is_one_sentence(tmp_path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputRefused, match=sentence):
        read_batch(path, None)


def test_nothing_given_says_what_to_do() -> None:
    with pytest.raises(InputRefused, match="Choose a CSV"):
        read_batch(None, " \n ")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_cells_do_not_run_as_formulas(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell


def test_ordinary_cells_are_left() -> None:
    assert safe_cell("a=b") == "a=b"
