"""Where a review's clauses end, for the reading trace; long reviews get fewer and longer rows."""

import re
from typing import NamedTuple

MOST_ROWS, FEWEST_ROWS, TOKENS_A_ROW = 24, 6, 10

# A run of marks is tried from its first one alone: a text of 20,000 of them must not take seconds.
_END = re.compile(
    r"""
    (?P<sentence>
        (?<![.!?…]) [.!?…]+ ["'”’)\]*]{0,8} (?=\s|$)      # marks and what closes with them, before a blank
      | (?:[!?…]|(?<!\.)\.{2,}) ["”)\]]* (?=[^\W\d_])   # no blank after it: "great!And", "well...then"
      | (?<=[a-z])\. ["”)\]]* (?=[A-Z])                 # "the end.Then"
      | (?:\s{0,8}<(?i:br)\s{0,8}/?>)+                  # a line break as IMDB writes it
      | (?=[^\S\n]{0,8}\n)                              # or a real one
    )
    | [,;:] ["'”’)\]]* (?=\s|[^\W\d_])
    | (?:[–—]|(?<!-)--+) (?=\w) | (?=\s(?:[–—-]|--)\s)
    | (?=\s(?i:but|yet|however|although|though)\s)
    """,
    re.VERBOSE,
)
_ABBREVIATION = re.compile(r"(?:^|[\s(\"“])(?:Mr|Mrs|Ms|Dr|St|vs|[A-Z])\.$")
_WORD = re.compile(r"\w[\w'’-]*")
_GOES_ON = re.compile(r"[\s\"'“]{0,20}(?P<next>.)")


class _Row(NamedTuple):
    end: int
    words: int
    sentence: bool  # whether a sentence ends with it


def most_rows(tokens: int) -> int:
    """Rows that cost no more than the answer itself, for a review of so many tokens.

    >>> most_rows(40), most_rows(150), most_rows(900)
    (6, 15, 24)
    """
    return min(MOST_ROWS, max(FEWEST_ROWS, tokens // TOKENS_A_ROW))


def clause_ends(text: str, most: int = MOST_ROWS) -> list[int]:
    """Where the rows end, in characters; the last one is the text's end.

    A row holds at least two words, or a whole sentence however short. It ends before a blank and behind a
    whole run of marks, where tokens end as well. Too many rows: neighbours with the fewest words join, those
    inside a sentence first.

    >>> text = "Slow, yes. But the film finds its feet, and how!"
    >>> [text[a:b] for a, b in zip([0, *clause_ends(text)], clause_ends(text))]
    ['Slow, yes.', ' But the film finds its feet,', ' and how!']
    """
    rows: list[_Row] = []
    words = start = 0
    found = [(match.end(), match[0], match["sentence"] is not None) for match in _END.finditer(text)]
    for end, mark, sentence in (*found, (len(text), "", True)):
        after = _GOES_ON.match(text, end)
        goes_on = mark[:1] in (*".!?…,",) and after is not None and after["next"].islower()
        if _ABBREVIATION.search(text[max(0, end - 8) : end]) or (goes_on and mark[-1] == ")"):
            continue
        words += len(_WORD.findall(text[start:end].replace("<br", "<")))
        start = end
        ends_sentence = sentence and not goes_on  # "Wow... just wow" goes on
        if rows and not words:  # marks alone belong to the row before
            rows[-1] = _Row(end, rows[-1].words, rows[-1].sentence or sentence)
        elif words >= 2 or (words and ends_sentence):  # else too short: it goes on into the next row
            rows.append(_Row(end, words, ends_sentence))
            words = 0
    return [*(row.end for row in _joined(rows, most)[:-1]), len(text)]


def _joined(rows: list[_Row], most: int) -> list[_Row]:
    """At most `most` rows; of very many, equal runs join first, so that a hostile text costs no more."""
    run = -(-len(rows) // (10 * most)) or 1
    runs = (rows[i : i + run] for i in range(0, len(rows), run))
    rows = [_Row(r[-1].end, sum(row.words for row in r), r[-1].sentence) for r in runs]
    while len(rows) > most:
        inside = [i for i in range(len(rows) - 1) if not rows[i].sentence] or range(len(rows) - 1)
        at = min(inside, key=lambda i: rows[i].words + rows[i + 1].words)
        rows[at : at + 2] = [rows[at + 1]._replace(words=rows[at].words + rows[at + 1].words)]
    return rows
