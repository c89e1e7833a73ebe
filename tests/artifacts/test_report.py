"""The report's figures come from the artifacts; README and docs/ are fresh; the references are sound."""

from pathlib import Path

import pytest

from sentiment_core import systems
from sentiment_core.artifacts import report, store
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Hardware, Metric
from sentiment_core.artifacts.store import ArtifactError, utc_now, write_record
from tests.fake_artifacts import RUN, write_assets

ROOT = Path(__file__).parents[2]
RESULTS = "docs/results.md"
MARKED = (
    "a\n<!-- results:begin -->\nold\n<!-- results:end -->\nb\nc\n<!-- speed:begin --><!-- speed:end -->\nd\n"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("assets"), n=100, pairs=10)


def changed(folder: Path, system: str, **fields: object) -> Path:
    """Artifacts with other fields in the record of `system` on imdb."""
    if not folder.joinpath("evals").exists():
        write_assets(folder, n=100, pairs=10)
    [path] = folder.glob(f"evals/*{system}-imdb/eval.json")
    store.write_record(path, store.read_eval(path.parent).record.model_copy(update=fields))
    return folder


def test_the_table_has_a_row_per_evaluation_with_n_and_hardware(root: Path) -> None:
    lines = [line for line in report.results_table(root).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 * len(systems.SYSTEMS)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert all("Synthetic GPU" in line for line in lines[2:])
    assert [line.split(" | ")[2] for line in lines[2:]] == [n for n in ("100", "20") for _ in systems.SYSTEMS]
    assert f"`{RUN}`" in lines[1 + len(systems.SYSTEMS)]
    titles = [line.removeprefix("| ").split(" | ")[0].split(",")[0] for line in lines[2:]]
    assert titles == [system.title for system in systems.SYSTEMS.values()] * 2


def test_few_shot_says_how_far_its_draws_lie_apart(tmp_path: Path) -> None:
    root = changed(tmp_path, "baseline-few-shot", draw_accuracies=(0.6, 0.62, 0.64))
    assert (
        "\n| Few-shot (k = 4), mean of 3 draws, SD 2.0 points, `SmolLM2-135M-Instruct` | imdb |"
        in report.results_table(root)
    )


def test_percentages_have_the_digits_that_n_supports() -> None:
    accuracy = Metric(value=0.95092, low=0.94817, high=0.95353, n=25_000)
    assert report.percent_interval(accuracy) == "95.09 % (94.82–95.35)"
    assert report.percent_interval(accuracy.model_copy(update={"n": 976}), unit="") == "95.1 (94.8–95.4)"
    assert report.percent_interval(Metric(value=1.0, n=10)) == "100.0 %"
    assert report.percent_interval(None) == "–"


def test_sections_are_replaced_and_the_rest_is_kept(root: Path) -> None:
    text = report.refreshed(MARKED, RESULTS, root)
    assert text.startswith("a\n<!-- results:begin -->\n| System")
    assert "old" not in text
    assert "<!-- results:end -->\nb\nc\n" in text
    assert text.endswith("<!-- speed:end -->\nd\n")
    assert report.refreshed(text, RESULTS, root) == text


@pytest.mark.parametrize("text", ["", MARKED + MARKED, MARKED.replace("results:begin", "results:x")])
def test_text_without_its_markers_is_refused(text: str, root: Path) -> None:
    with pytest.raises(ValueError, match=r"docs/results.md must hold <!-- results:begin -->"):
        report.refreshed(text, RESULTS, root)


def test_no_artifacts_are_a_sentence_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert "python eval.py" in report.results_table(tmp_path)
    assert report.summary_table(tmp_path) == "None of these is evaluated yet."
    folder = tmp_path / "evals" / "broken"
    folder.mkdir(parents=True)
    (folder / "eval.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"broken.eval\.json"):
        report.results_table(tmp_path)


def test_command_line_writes_what_is_fresh(tmp_path: Path) -> None:
    for name, sections in report.DOCUMENTS.items():
        marked = "".join(f"<!-- {section}:begin -->old<!-- {section}:end -->" for section in sections)
        store.write_text(tmp_path / name, marked)
    assert report.main(tmp_path) == 0
    for name in report.DOCUMENTS:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert report.refreshed(text, name) == text
    (tmp_path / "README.md").write_text("")
    assert report.main(tmp_path) == 2


@pytest.mark.parametrize("name", report.DOCUMENTS)
def test_a_document_is_fresh(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert report.refreshed(text, name) == text, "run python -m sentiment_core.artifacts.report"


def test_readme_tells_before_after_taught_teacher_an_encoder_and_what_seeds_do() -> None:
    """Each accuracy is what the predictions give, to two decimals."""
    _, rule, *rows, _, seeds = report.summary_table().splitlines()
    assert "“best”, mean of 5 seeds" in seeds
    assert "“study”, mean of 5 seeds" in seeds
    assert "`qwen2.5-coder-1.5b` on 48,882 unlabelled" in rows[2]
    evaluations = {one.path.name: one for one in store.list_artifacts().evals}
    for row, (system, name) in zip(rows, report.SUMMARY, strict=True):
        answers = evaluations[f"imdb--{system}--{name}"].predictions()
        share = (answers["prediction"] == answers["label"]).mean()
        assert row.split(" | ")[3].startswith(f"{100 * share:.2f} ("), row
        assert name in row
        assert row.count("|") == rule.count("|")


# ---- published results


def test_references_are_weakest_first_with_a_source_each() -> None:
    references = store.read_references()
    *results, ambiguity = references
    accuracies = [reference.accuracy or 0 for reference in results]
    assert accuracies == sorted(accuracies)
    assert all(0 < accuracy < 1 for accuracy in accuracies)
    assert ambiguity.accuracy is None, "no bound"
    assert {"725", "173"} <= set(ambiguity.protocol.split())
    assert len({reference.name for reference in references}) == len(references)
    kinds = [reference.kind for reference in references]
    assert [kinds.count(kind) for kind in ("study-before", "study-after", "label-ambiguity")] == [1, 1, 1]
    for reference in references:
        assert reference.source
        assert reference.checked
        assert reference.selected_on
        assert reference.url.startswith("https://") or reference.kind.startswith("study-")


def test_speed_table_shows_each_benchmark_that_is_there(tmp_path: Path) -> None:
    def trained(system: str, rate: float, **more) -> BenchmarkRow:
        return BenchmarkRow(system=system, reviews_per_second=Metric(value=rate, n=1), **more)

    row = BenchmarkRow(
        system="ours", first_step_seconds=2.25,
        seconds_per_review=Metric(value=0.2, low=0.19, high=0.3, n=5, higher_is_better=False),
    )  # fmt: skip
    record = BenchmarkRecord(
        kind="live", created_at=utc_now(), command="python -m x", base_model="tiny",
        hardware=Hardware(device="Slow CPU"), versions={}, rows=(row,), settings={"instructions": "avx2"},
    )  # fmt: skip
    write_record(tmp_path / "benchmarks" / "live.json", record)
    text = report.speed_table(tmp_path)
    assert "| ours | 200 (190–300) | 2.2 |" in text
    assert "Slow CPU (avx2)" in text
    assert "Training speed" not in text

    two = trained("ours, 2 GPUs", 1700, devices=2, batch_size=48)
    rows = (trained("usual", 40, batch_size=16), trained("plain", 100), trained("ours", 1000), two)
    host = Hardware(device="Fast GPU", cpu="Slow CPU")
    record = record.model_copy(update={"kind": "train", "rows": rows, "hardware": host})
    write_record(tmp_path / "benchmarks" / "train.json", record)
    text = report.speed_table(tmp_path)
    assert "Fast GPU (host: Slow CPU)" in text
    assert "| usual | 40.0 | – |" in text
    assert "| plain | 100.0 | 0.10 × |" in text
    assert "| ours, 2 GPUs | 1,700.0 | 1.70 × |" in text

    rows = tuple(
        trained(engine, rate, note="417 steps of 48 reviews",
                validation_accuracy=Metric(value=p, low=p - 0.006, high=p + 0.006, n=5000))
        for engine, rate, p in (("packed", 900, 0.949), ("nf4", 60, 0.95))
    )  # fmt: skip
    parity = record.model_copy(update={"kind": "parity", "rows": rows, "settings": {"train": 20_000}})
    write_record(tmp_path / "benchmarks" / "parity.json", parity)
    text = report.speed_table(tmp_path)
    assert "94.90% (94.30% to 95.50%) with engine packed and 95.00%" in text
    assert "with engine nf4, packed 15.0 × as fast as nf4, of 5,000 validation reviews" in text
    assert "trained on the same 20,000 in 417 steps of 48 reviews" in text
