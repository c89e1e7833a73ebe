"""Labels, the one prompt, and how a long review is cut."""

import itertools

import pytest

from sentiment_core.labels import LABEL_WORDS, Label, parse_label
from sentiment_core.prompts import PROMPT, REVIEW_SLOT, cut_middle, prompt_hash

# labels


NEGATIVE = [0, "0", 0.0, "0.0", "neg", "NEG", "negative", " Negative\n", Label.NEGATIVE]
POSITIVE = [1, "1", 1.0, "1.0", "pos", "Pos", "POSITIVE", "\tpositive ", Label.POSITIVE]


def test_spellings():
    assert [parse_label(value) for value in NEGATIVE] == [Label.NEGATIVE] * len(NEGATIVE)
    assert [parse_label(value) for value in POSITIVE] == [Label.POSITIVE] * len(POSITIVE)


@pytest.mark.parametrize("value", [-1, 2, "", None, "good", 0.5, float("nan"), "neutral", True, False])
def test_other_labels_are_refused_with_the_value(value):
    with pytest.raises(ValueError, match="unknown label") as caught:
        parse_label(value)
    assert repr(value) in str(caught.value)
    assert "use 0/1, neg/pos or negative/positive" in str(caught.value)


def test_label_is_the_index_of_its_word():
    assert LABEL_WORDS == ("Negative", "Positive")
    for label in Label:
        assert LABEL_WORDS[label] == label.word
        assert parse_label(label.word) is label


# prompt


def test_prompt_shows_the_review_once_and_names_both_answers():
    messages = PROMPT.messages()
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "".join(message["content"] for message in messages).count(REVIEW_SLOT) == 1
    assert all(word in PROMPT.system for word in LABEL_WORDS)


def test_hash_is_stable_and_changes_with_all_that_the_model_reads(monkeypatch):
    read = {"prefix": "before", "suffix": "after", "label_words": LABEL_WORDS}
    changes = [
        {"prefix": "before "},
        {"suffix": "after\n"},
        {"prefix": "beforea", "suffix": "fter"},
        {"label_words": ("negative", "positive")},
        {"label_words": ("Positive", "Negative")},
    ]
    assert prompt_hash(**read) == "928d7ef66bf39e00"
    hashes = [prompt_hash(**read), *(prompt_hash(**read | change) for change in changes)]
    monkeypatch.setattr("sentiment_core.prompts.CUT_MARK", "…")
    hashes.append(prompt_hash(**read))
    assert len(set(hashes)) == len(hashes)
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)


# cutting


@pytest.mark.parametrize("mark_length", range(5))
def test_cut_middle_fills_the_limit_with_head_mark_and_tail(mark_length):
    mark = [-1 - i for i in range(mark_length)]
    for n, limit in itertools.product(range(14), range(12)):
        ids = list(range(n))
        kept, cut = cut_middle(ids, limit, mark)
        if n <= limit:
            assert (kept, cut) == (ids, False)
            continue
        review = max(limit - mark_length, 0)
        head, tail = (review + 1) // 2, review // 2
        assert cut
        assert kept == ids[:head] + mark[: limit - review] + ids[n - tail :], (n, limit)
        assert len(kept) == limit
