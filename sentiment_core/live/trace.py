"""The reading trace: what a model would answer if the review ended after each of its clauses.

A causal model's keys and values of a review's beginning are the same whatever follows. So the answer's pass
keeps them, and one pass more, over the prompt's end alone and once for each clause, gives every row: nothing
about it is approximated, and its last row is the answer.
"""

import numpy as np
import torch

from sentiment_core.live.clauses import clause_ends, most_rows
from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.prompts import CUT_MARK, cut_middle


def rows_of(text: str, encoder: PromptEncoder, shown: int) -> tuple[list[int], np.ndarray]:
    """Where a review's rows end, and how much of the prompt each of them has read.

    Args:
        shown: tokens of the review that the prompt holds, after any cut in its middle.
    Returns (characters, of n rows; (n - 1,) tokens of the prompt's review, for all rows but the last, which
    is the answer). A row ends where a token ends; one that ends in what was cut out ends before the cut.
    """
    token_ends = np.array(encoder.token_ends(text), dtype=int)
    mark = [-1] * len(encoder.review_ids([CUT_MARK])[0])
    places = np.array(cut_middle(range(len(token_ends)), shown, mark)[0], dtype=int)
    most = most_rows(shown + len(encoder.prefix_ids) + len(encoder.suffix_ids))
    ended = np.searchsorted(token_ends, clause_ends(text, most)[:-1], side="right")
    read = (places >= 0) & (places < ended[:, None])  # (rows, tokens)
    cuts = np.unique((read * np.arange(1, len(places) + 1)).max(axis=1, initial=0))
    cuts = cuts[(cuts > 0) & (cuts < shown)]
    return [*token_ends[places[cuts - 1]].tolist(), len(text)], cuts


def tree(seen: torch.Tensor, tail: int, before: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How n copies of the same tokens stand in one row of tokens behind n beginnings of different lengths.

    Args:
        seen: (n,) tokens that stand before each copy.
        tail: tokens of a copy, most often the prompt's end.
        before: tokens that stand before them all.
    Returns (n tail,) positions; (n tail, before + n tail) bool, what each token may see; (n,) each copy's
    last token.
    """
    copies = torch.arange(seen.shape[0], device=seen.device)
    copy = copies[:, None].expand(-1, tail).flatten()  # 0 0 … 1 1 …
    positions = (seen[:, None] + torch.arange(tail, device=seen.device)).flatten()
    past = torch.arange(before, device=seen.device) < seen[copy][:, None]
    own = (copy[:, None] == copy) & (positions <= positions[:, None])
    return positions, torch.cat((past, own), dim=1), (copies + 1) * tail - 1
