"""Where a review's clauses end, and how many rows there are."""

import pytest

from sentiment_core.live.clauses import MOST_ROWS, clause_ends, most_rows

SENTENCE = "It drags, it shouts, and it repeats itself."


def clauses(text: str, most: int = MOST_ROWS) -> list[str]:
    ends = clause_ends(text, most)
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    "rows",
    [
        ["Superb.", " Yes.", " The end."],  # a sentence alone, however short
        ["Good, bad,", " ugly, all of it here;", " see: the end"],  # at least two words
        ["Wow... just wow"],
        ["I waited…", " and waited.", " And then…", " Nothing came"],
        ["Mr. Smith goes on,", " and Dr. Who stays.", " Fine!"],
        ["It is 3.5 stars,", " 10/10,", " at 9:30 p.m.", " on TV"],
        ["Great film.<br /><br />", "I loved it.<br />", "Again"],
        ["first line", "\nsecond line\n", "\nthird"],
        ["He said “it is bad.”", " Then he left.", ' "Never again!"', " she cried."],
        ["A film", " -- a long one", " -- about love", " – or not", " – and a dog—", "maybe"],
        ["So dull", " but I stayed", " yet nothing came", " however hard I looked"],
        ["I like great!", "And then...", "what now"],  # no blank behind the mark
        ["Great (really!) film,", " it is."],
        ["Good?!?!", " Not a bit..."],  # a whole run of marks
        *([text] for text in ("", "  ", "word", "?!...", "10/10", "\n\n")),
    ],
)
def test_rows_end_where_clauses_do(rows: list[str]) -> None:
    assert clauses("".join(rows)) == rows


def test_rows_grow_with_the_tokens_up_to_a_most() -> None:
    assert [most_rows(n) for n in (0, 69, 70, 239, 240, 5_000)] == [6, 6, 7, 23, 24, 24]


@pytest.mark.parametrize("most", [6, 13, MOST_ROWS])
def test_too_many_rows_join(most: int) -> None:
    text = " ".join([SENTENCE] * 100)
    rows = clauses(text, most)
    assert len(rows) == most
    assert "".join(rows) == text


def test_rows_inside_a_sentence_join_first_and_the_shortest_of_them() -> None:
    text = "No. Too slow, far too loud for me, and still a film of its time, I think. Yes. Watch it."
    assert len(clauses(text)) == 7
    assert clauses(text, 6)[1] == " Too slow, far too loud for me,"
    assert clauses(text, 4) == ["No.", text[3:-15], " Yes.", " Watch it."]
    assert clauses(text, 3) == ["No.", text[3:-15], " Yes. Watch it."]
    assert clauses(text, 1) == [text]


@pytest.mark.parametrize(
    "part",
    [", a", "a, b. ", "\n", "\n ", ". ", ".", "a.", ". a", " -- ", "--a", "-", "–", "!", "….", "é…", "?.",
     "'", '"', '"\n', ".'", ',"', "<br />", "<br ", "</br", "\t", " but", "Mr. ", "A. ", "( ", ".)", "a'"],
)  # fmt: skip
@pytest.mark.parametrize("last", ["", "_", "a"])
def test_hostile_texts_get_rows_too(part: str, last: str) -> None:
    text = (part * 20_000)[:20_000] + last
    ends = clause_ends(text)
    assert 1 <= len(ends) <= MOST_ROWS
    assert ends == sorted(set(ends))
    assert ends[-1] == len(text)
