"""The picture of one transformer layer: frozen 4-bit blocks, and the two thin adapters beside each."""

from __future__ import annotations

from html import escape

from sentiment_core.chart_style import percent
from sentiment_core.schema import RunRecord

ATTENTION = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("o_proj", "output"))
MLP = (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"))
ROW, WIDTH = 46, 480


def layer_picture(record: RunRecord) -> str:
    """An inline SVG in the page's own colours (CSS variables), with a title and a description."""
    targets = set(record.lora.targets)
    known = {name for name, _ in (*ATTENTION, *MLP)}
    groups = [("Attention", ATTENTION), ("Feed-forward", MLP)]
    others = tuple((name, "") for name in sorted(targets - known) if name not in ("all-linear",))
    if others:
        groups.append(("Other layers", others))
    every = "all-linear" in targets
    parts, y = [], 52
    for title, rows in groups:
        height = 34 + ROW * len(rows)
        parts.append(
            f'<rect x="8" y="{y}" width="{WIDTH - 16}" height="{height}" rx="8" fill="var(--q-card)" '
            f'stroke="var(--q-line)"/>'
            f'<text x="22" y="{y + 23}" class="h">{title}</text>'
        )
        for i, (name, word) in enumerate(rows):
            parts.append(_row(name, word, y + 32 + ROW * i, every or name in targets, record.lora.rank))
        y += height + 18
        parts.append(_arrow(y - 18, y))
    share = percent(record.trainable_parameters / record.base_model.parameters)
    description = (
        f"Each weight matrix is a wide slate block, frozen in 4 bits. "
        f"Beside {'each' if every else len(targets)} of them "
        f"stand two thin green matrices A and B of rank {record.lora.rank}; only these are "
        f"trained, {share} of the weights."
    )
    height = y + 44
    return (
        f'<svg class="picture" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="pic-t pic-d">'
        f'<title id="pic-t">One transformer layer under QLoRA</title><desc '
        f'id="pic-d">{escape(description)}</desc>'
        "<style>.picture text{font:14px system-ui,sans-serif;fill:var(--q-ink)} .picture .h{font-weight:650}"
        " .picture .m{fill:var(--q-muted);font-size:13px} .picture .on{fill:var(--q-page);font-weight:600}"
        " @media (max-width:640px){.picture text{font-size:16px} .picture .m{font-size:15px}}</style>"
        f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" class="m">the review, token by '
        f"token</text>{_arrow(30, 52)}"
        f'{"".join(parts)}<text x="{WIDTH / 2}" y="{y + 18}" text-anchor="middle" class="m">to the next '
        f"layer; after the "
        "last one: “Positive” or “Negative”</text></svg>"
    )


def _arrow(top: int, bottom: int) -> str:
    x = WIDTH / 2
    return (
        f'<path d="M{x} {top}V{bottom - 5}" stroke="var(--q-muted)" stroke-width="1.5"/>'
        f'<path d="M{x - 4} {bottom - 7}L{x} {bottom - 1}L{x + 4} {bottom - 7}Z" fill="var(--q-muted)"/>'
    )


def _row(name: str, word: str, y: int, adapted: bool, rank: int) -> str:
    """A frozen block; where adapted, A and B beside it with a plus sign."""
    left, block = 22, 232
    label = f"{name}" if not word else f"{word} · {name}"
    out = (
        f'<rect x="{left}" y="{y}" width="{block}" height="34" rx="5" fill="var(--q-base)"/>'
        f'<text x="{left + 12}" y="{y + 22}" class="on">{escape(label)}</text>'
        f'<text x="{left + block - 10}" y="{y + 22}" text-anchor="end" class="on">4-bit</text>'
    )
    if not adapted:
        return out + f'<text x="{left + block + 16}" y="{y + 22}" class="m">frozen, no adapter</text>'
    x = left + block + 12
    return out + (
        f'<text x="{x}" y="{y + 22}">+</text>'
        f'<rect x="{x + 18}" y="{y + 12}" width="64" height="10" rx="3" fill="var(--q-fine)"/>'
        f'<text x="{x + 88}" y="{y + 22}" class="m">A</text>'
        f'<rect x="{x + 106}" y="{y}" width="10" height="34" rx="3" fill="var(--q-fine)"/>'
        f'<text x="{x + 121}" y="{y + 22}" class="m">B</text>'
        f'<text x="{x + 138}" y="{y + 22}" class="m">rank {rank}</text>'
    )
