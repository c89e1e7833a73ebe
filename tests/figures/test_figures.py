"""Figures hold the numbers they were given, and follow the theme."""

import json
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from sentiment_core.figures import evaluation, style, training
from sentiment_core.metrics.histogram import BINS

SYSTEMS = pd.DataFrame(
    [
        ("Fine-tuned", "fine-tuned", 0.95, 0.947, 0.953),
        ("Base", "baseline-scored", 0.5, 0.49, 0.51),
        ("Published", "", 0.965, np.nan, np.nan),
    ],
    columns=["title", "system", "accuracy", "low", "high"],
)
COSTS = pd.DataFrame({
    "title": ["Small", "Twin", "Large", "Paper", "Secret"], "run": ["a", "b", "c", "", ""],
    "parameters": [1e8, 1e8, 1.5e9, 3e8, np.nan], "gpu_seconds": [40, 50, 300, np.nan, np.nan],
    "peak_memory_gb": [9, 9, 40, np.nan, np.nan], "trainable_share": [3.6, 4, 14, np.nan, np.nan],
    "adapter_mb": [10, 10, 37, np.nan, np.nan], "answer_ms": [0.3, 0.3, 1.6, np.nan, np.nan],
    "on_front": [True, False, True, np.nan, np.nan],
    "named": [True, True, True, np.nan, np.nan],
    "before_accuracy": [0.5, 0.5, 0.85, *[np.nan] * 2], "before_low": [0.49, 0.49, 0.84, *[np.nan] * 2],
    "before_high": [0.51, 0.51, 0.86, *[np.nan] * 2], "accuracy": [0.95, 0.94, 0.96, 0.965, 0.97],
    "low": [0.94, 0.93, 0.95, *[np.nan] * 2], "high": [0.96, 0.95, 0.97, *[np.nan] * 2],
})  # fmt: skip
CLASSES = ["Negative", "Positive"]


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    a, b = sorted((luminance(first), luminance(second)), reverse=True)
    return (a + 0.05) / (b + 0.05)


def ground_of(name: str) -> list[str]:
    """The page's background of that name, light and dark."""
    from sentiment_core.dashboard.components.parts import css

    found = re.findall(rf"--q-{name}:(#\w+)", css())
    assert len(found) == 2
    return found


@pytest.mark.parametrize("name", [name for name in style.PALETTE if name != "line"])
def test_every_colour_can_be_read_as_text_in_both_themes(name: str) -> None:
    tint = style.PALETTE[name]
    for ground in ("page", "card"):
        light, dark = ground_of(ground)
        assert contrast(tint.light, light) >= 4.2, (name, ground)
        assert contrast(tint.dark, dark) >= 4.5, (name, ground)


def colors(figure: go.Figure) -> set[str]:
    return set(re.findall(r"#[0-9A-Fa-f]{6}", figure.to_json()))


def figures() -> dict[str, go.Figure]:
    steps = np.arange(1, 301)
    history = pd.DataFrame({"step": steps, "examples": 16 * steps, "seconds": steps / 4})
    history = history.assign(loss=np.exp(-steps / 50))
    covered = pd.DataFrame({"actor": "fine", "coverage": [0.5, 1], "accuracy": [0.99, 0.95]})
    covered = covered.assign(low=0.94, high=0.995)
    counts = pd.DataFrame([[8, 2], [1, 9]], index=CLASSES, columns=CLASSES)
    return {
        "systems": evaluation.systems_chart(SYSTEMS),
        "zoomed": evaluation.systems_chart(SYSTEMS, 90),
        "coverage": evaluation.coverage_chart(covered, covered.assign(target=0.98)[-1:]),
        "loss": training.loss_chart({"run": history.assign(eval_accuracy=0.9)}),
        "confusion": evaluation.confusion_chart(counts, "fine"),
        "cost": evaluation.cost_chart(
            COSTS, "parameters", (0.971, 0.993, "labels in doubt"), "a", "accuracy"
        ),
    }


@pytest.mark.parametrize("name", list(figures()))
def test_figures_use_only_colours_that_follow_the_theme(name: str) -> None:
    known = {tint.light for tint in (*style.PALETTE.values(), style.PAPER)}
    known |= {"#101828", "#ffffff", "#808997"}
    figure = figures()[name]
    assert colors(figure) <= known
    assert figure.layout.template.layout.paper_bgcolor == style.TRANSPARENT


@pytest.mark.parametrize("actor", ["base", "fine", "ink"])
def test_a_matrix_is_readable_in_both_themes(actor: str) -> None:
    """A heatmap is an image: its translucent tint lies on either ground, the text above it changes."""
    counts = pd.DataFrame([[10, 0], [0, 10]], index=CLASSES, columns=CLASSES)
    tint = evaluation.confusion_chart(counts, actor).data[0].colorscale[-1][1]
    *rgb, opacity = (float(part) for part in re.findall(r"[0-9.]+", tint))
    for ground, ink in zip(ground_of("card"), style.PALETTE["ink"], strict=True):
        below = [int(ground[i : i + 2], 16) for i in (1, 3, 5)]
        mixed = [round(opacity * a + (1 - opacity) * b) for a, b in zip(rgb, below, strict=True)]
        color = "#" + "".join(f"{part:02x}" for part in mixed)
        assert contrast(color, ink) >= 4.5
        assert contrast(color, ground) >= 1.3


def test_accuracy_axis_runs_from_0_to_100_with_chance_marked() -> None:
    figure = evaluation.systems_chart(SYSTEMS)
    assert figure.layout.xaxis.range[0] <= 0
    assert figure.layout.xaxis.range[1] >= 100
    assert any(shape.x0 == 50 == shape.x1 for shape in figure.layout.shapes)
    drawn = {trace.name: trace.x[0] for trace in figure.data}
    assert drawn == pytest.approx({"Fine-tuned": 95, "Base": 50, "Published": 96.5})
    assert len(figure.layout.yaxis.tickvals) == 2, "no line through the name beside a published result"


def test_a_title_longer_than_a_phone_has_two_lines_and_room_for_them() -> None:
    long = "Frozen encoder + logistic regression, embeddinggemma-300m"

    def drawn(title: str) -> tuple[float, list[str]]:
        figure = evaluation.systems_chart(SYSTEMS.replace("Base", title))
        places = {trace.x[0]: trace.y[0] for trace in figure.data}
        return places[95] - places[50], [one.text for one in figure.layout.annotations]

    (space, short), (more, broken) = drawn("Short, one"), drawn(long)
    assert more > space, "to the row above"
    assert "Short, one" in short
    assert long.replace(", ", ",<br>") in broken


def test_names_and_marks_of_coverage_do_not_lie_on_each_other() -> None:
    shares = np.linspace(0.01, 1, 100)
    rows = pd.DataFrame({"coverage": shares, "accuracy": 1 - shares / 20})
    both = pd.concat([rows.assign(actor=actor, accuracy=rows["accuracy"]) for actor in ("base", "fine")])
    both = both.assign(low=both["accuracy"], high=both["accuracy"])
    marks = pd.DataFrame({"target": [0.97, 0.98, 0.99], "coverage": [0.92, 0.9, 0.7], "accuracy": 0.97})
    figure = evaluation.coverage_chart(both, marks)
    sides = {one.text: (one.xanchor, one.yanchor) for one in figure.layout.annotations}
    assert sides == {"base model": ("right", "top"), "fine-tuned": ("left", "bottom")}, "of the same line"
    assert len({*figure.data[-1].textposition[:2]}) == 2


def test_a_cut_axis_says_so_and_keeps_those_below_in_sight() -> None:
    figure = evaluation.systems_chart(SYSTEMS, 90)
    assert figure.layout.xaxis.range[0] == 90
    assert "cut: the axis begins at 90" in figure.layout.xaxis.title.text
    base = next(trace for trace in figure.data if trace.name == "Base")
    assert (base.x[0], base.marker.symbol, base.error_x.array) == (90, "triangle-left", None)
    assert "chance" not in [one.text for one in figure.layout.annotations]
    assert any(one.text == f"50.0{style.THIN}%" for one in figure.layout.annotations)


def test_confusion_prints_counts_and_row_shares() -> None:
    (matrix,) = figures()["confusion"].data
    texts = [re.split("<.*?>", text) for row in matrix.text for text in row]
    assert [text[1] for text in texts] == ["8", "2", "1", "9"]
    assert texts[0][-2:] == [f"80.0{style.THIN}%", "correct"]
    assert texts[2][-2:] == [f"10.0{style.THIN}%", "incorrect"]
    assert (matrix.zmin, matrix.zmax) == (0, 100)  # one scale for every matrix
    assert matrix.z.tolist() == [[80, 20], [10, 90]]


def test_marks_carry_their_intervals() -> None:
    trace = evaluation.systems_chart(SYSTEMS).data[2]
    assert (trace.name, trace.x[0]) == ("Fine-tuned", 95)
    assert trace.error_x.array == pytest.approx([0.3])
    assert trace.error_x.arrayminus == pytest.approx([0.3])


def test_an_empty_row_is_no_division_by_zero() -> None:
    counts = pd.DataFrame([[0, 0], [1, 9]], index=CLASSES, columns=CLASSES)
    assert "nan" not in evaluation.confusion_chart(counts, "base").to_json()


def history(*checks: tuple[int, float], counted: bool = True) -> pd.DataFrame:
    """A logged loss a step up to 20,000, and evaluations (step, epoch) of ten reviews."""
    steps = np.arange(1, 20_001)
    rows = {"step": steps, "epoch": np.nan, "examples": 16 * steps, "seconds": 0.1 * steps, "loss": 1.0}
    rows = pd.DataFrame(rows)
    counts = np.zeros((2, BINS), dtype=int)
    counts[0, 0], counts[1, -1] = 5, 5
    found = pd.DataFrame(list(checks), columns=["step", "epoch"])
    found = found.assign(
        examples=16 * found["step"], seconds=0.1 * found["step"], eval_loss=0.2, eval_accuracy=1.0,
        eval_counts=[counts.tolist() if counted else None] * len(found),
    )  # fmt: skip
    columns = ["eval_loss", "eval_accuracy", "eval_counts"]
    whole = pd.concat([rows, found]).reindex(columns=[*rows, *columns])
    return whole.replace({"eval_counts": {np.nan: None}})


def test_a_replay_has_every_run_and_counts_every_review() -> None:
    value = training.replay({"run": history((0, 0.0), (1, 0.1), (2, 0.2))})
    (run,) = value["runs"]
    assert run["train"][-1] == {"examples": 320_000, "seconds": 2000.0, "loss": 1.0, "smooth": 1.0}
    assert value["reviews"] == [16, 320_000]
    assert value["loss"] == pytest.approx([0.2 / 1.15, 1.15])
    assert value["accuracy"] == pytest.approx([0.75, 1])
    assert [np.sum(check["counts"]) for check in run["checks"]] == [10, 10, 10]
    assert value["top"] == 5
    json.dumps(value, allow_nan=False)
    older = training.replay({"run": history((0, 0.0), (9, 1.0), counted=False), "other": history((0, 0.0))})
    assert older["top"] == 0, "no histogram where evaluations were not counted"
    assert [one["dash"] for one in older["runs"]] == ["solid", "8px,4px"]
    json.dumps(older, allow_nan=False)


def test_no_line_joins_what_lies_too_far_apart() -> None:
    def lines(*checks: tuple[int, float]) -> list[bool]:
        (run,) = training.replay({"run": history(*checks)})["runs"]
        return [check["joined"] for check in run["checks"]]

    assert lines((0, 0.0), (1, 0.01), (2, 0.02), (4, 0.04), (5, 0.05)) == [False, True, True, True, True]
    assert lines((0, 0.0), (1456, 1.0)) == [False, False], "the study's first epoch"
    assert lines((0, 0.0), (243, 0.5), (486, 1.0)) == [False, False, True]
    assert lines((900, 1.0), (1000, 2.5)) == [False, False]
    assert lines() == []


@pytest.mark.parametrize("by", list(evaluation.COSTS))
def test_an_arrow_a_run_at_its_cost_and_where_the_error_was_halved(by: str) -> None:
    figure = evaluation.cost_chart(COSTS, by, (0.971, 0.993, "labels in doubt"), "b", "accuracy")
    arrows = {trace.name: trace for trace in figure.data}
    published = arrows.pop("published")
    front = arrows.pop("front")
    assert set(arrows) == {"Small", "Twin", "Large"}
    assert [*front.x] == [arrows[name].x[-1] for name in ("Small", "Large")]
    assert [*front.y] == [arrows[name].y[-1] for name in ("Small", "Large")]
    small, twin, large = (arrow.x[0] for arrow in arrows.values())
    assert small < twin < large
    gap = twin - small
    assert gap > 0.05 * np.ptp(figure.layout.xaxis.range), "equal sizes would hide each other"
    costs = COSTS[by].to_numpy()
    assert small + twin == pytest.approx(np.log10(costs[0]) + np.log10(costs[1]), abs=0.01)
    assert large == pytest.approx(np.log10(costs[2]), abs=0.05)
    start, end = arrows["Small"].y
    assert (start, end - start) == pytest.approx((1, np.log2(10))), "from 50 to 5 % of errors"
    assert all(np.greater([*one.error_y.array, *one.error_y.arrayminus], 0).all() for one in arrows.values())
    assert max(published.x) == published.x[-1] > max(large, *published.x[:-1] - 0.01), (
        "no cost: at the right end"
    )
    (band,) = figure.layout.shapes
    assert (2**-band.y0, 2**-band.y1) == pytest.approx((0.029, 0.007))
    bold = [note.text for note in figure.layout.annotations if note.font.weight == 700]
    assert bold == ["Twin", "2"]


@pytest.mark.parametrize("against", list(evaluation.COSTS))
def test_two_costs_are_held_against_each_other_on_their_logarithms(against: str) -> None:
    figure = evaluation.cost_chart(COSTS, "gpu_seconds", None, "b", against)
    marks = {trace.name: trace for trace in figure.data if trace.name not in ("front", "published")}
    assert [10 ** mark.y[0] for mark in marks.values()] == pytest.approx(COSTS[against][:3].tolist())
    assert {(len(mark.x), *mark.marker.symbol) for mark in marks.values()} == {(1, "triangle-up")}
    low, high = figure.layout.yaxis.range
    assert sum(low < tick < high for tick in figure.layout.yaxis.tickvals) >= 2
    assert figure.layout.yaxis.title.text == evaluation.COSTS[against]
    assert [len(trace.x) for trace in figure.data if trace.name == "published"] == [0], "it has no such cost"


def test_figures_of_a_damaged_record_are_drawn_as_they_can_be() -> None:
    odd = COSTS.assign(parameters=0.0, low=None, high=None)
    figure = evaluation.cost_chart(odd, "parameters", None, None, "accuracy")
    assert np.isfinite(figure.layout.xaxis.range).all()
