"""The results in README and docs/, written from the committed artifacts so that no figure is typed in.

python -m sentiment_core.artifacts.report    # puts them between the markers of README.md and docs/ here
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sentiment_core import cli, config
from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import BenchmarkRecord, Crowd, EvalRecord, Metric, SoakRecord
from sentiment_core.systems import SYSTEMS

IN_WORDS = ("System", "Dataset", "Hardware", "Note", "Learned from", "Training", "Trained in")
"""Columns that are aligned at the left."""
SUMMARY = (
    ("baseline-scored", "smollm2-135m"), ("fine-tuned", "smollm2-135m"),
    ("fine-tuned", "smollm2-135m-taught"), ("fine-tuned", "qwen2.5-coder-1.5b"),
    ("encoder-full", "all-mpnet-base-v2"),
)  # fmt: skip
"""README's rows: system, and its run, base model or encoder."""


def results_table(root: Path = config.ASSETS) -> str:
    """A Markdown table of every evaluation under `root`; a sentence where there is none.

    Unlike the dashboard, a report must not pass over one that cannot be read: ArtifactError.
    """
    if not (records := _records(root)):
        return "No evaluation yet; `python eval.py --system all` makes them."
    limits = f"Intervals cover the sampling of the reviews alone, not another seed. {seeds_sentence(root)}"
    rows = [_measured(record) | {"Trained in": _learned(record, root)["Training"]} for record in records]
    return f"{_table(rows)}\n\n{limits.strip()}"


def seeds_sentence(root: Path = config.ASSETS) -> str:
    """How much of an accuracy is the seed's, which no interval of the table covers; empty if not measured."""
    if not (root / "benchmarks" / "seeds.json").exists():
        return ""
    record = store.read_benchmark("seeds", root)
    rows = [(row, row.validation_accuracy) for row in record.rows if row.validation_accuracy]
    found = [f"recipe “{row.system}”, {row.note}: {percent_interval(accuracy)}" for row, accuracy in rows]
    return (
        f"Validation accuracy on {rows[0][1].n:,} reviews left out of training, with the lowest and highest "
        f"in brackets ({record.base_model}, {record.hardware.title}): {'; '.join(found)}."
    )


def summary_table(root: Path = config.ASSETS) -> str:
    """What each of SUMMARY learned from, how long it took, accuracy by dataset, and what seeds change."""
    rows: dict[tuple[str, str], dict[str, str]] = {key: {} for key in SUMMARY}
    for record in _records(root):
        key = record.system, record.run_id or record.encoder or _base(record)
        if key in rows:
            title = f"Accuracy (%), {record.dataset.name}, n = {record.dataset.n:,}"
            accuracy = {title: percent_interval(record.metrics["accuracy"], unit="")}
            rows[key] = (rows[key] or _learned(record, root)) | accuracy
    found = [*filter(None, rows.values())]
    return f"{_table(found)}\n\n{seeds_sentence(root)}" if found else "None of these is evaluated yet."


def _learned(record: EvalRecord, root: Path) -> dict[str, str]:
    row = {"System": _measured(record)["System"], "Learned from": "–", "Training": "–"}
    if run := store.read_run(root / "runs" / (record.run_id or "")).record:
        row["Learned from"] = f"{run.data.labelled:,} labelled reviews"
        row["Training"] = _took(run.wall_seconds, run.peak_memory_bytes, run.hardware.title)
        if run.teacher:
            row["Learned from"] += f", and `{run.teacher.run_id}` on {run.teacher.reviews:,} unlabelled ones"
    elif record.encoder:
        its = record.settings
        row["Learned from"] = f"{its['train_reviews']:,} labelled reviews"
        row["Training"] = _took(its["train_seconds"], its["peak_memory_bytes"], record.hardware.title)
    return row


def _took(seconds: float, memory_bytes: int, hardware: str) -> str:
    return f"{seconds:.0f} s, {memory_bytes / 1e9:.1f} GB, {hardware}"


def speed_table(root: Path = config.ASSETS) -> str:
    """What was taken against what, for each benchmark that is there."""
    parts = []
    for kind, title in BENCHMARKS.items():
        if (root / "benchmarks" / f"{kind}.json").exists():
            record = store.read_benchmark(kind, root)
            where, host = record.hardware.title, record.hardware.cpu
            told = f"host: {host}" if host and host != where else record.settings.get("instructions")
            title += f", {where}" + (f" ({told})" if told else "")
            title += f", commit {(record.commit or 'unknown')[:7]}"
            parts.append(_parity(record, title) if kind == "parity" else _benchmark_table(record, title))
    return "\n\n".join(parts)


def _benchmark_table(record: BenchmarkRecord, title: str) -> str:
    alone = record.kind in ("live", "browser")
    unit, scale, digits = ("Latency (ms/review)", 1000, 0) if alone else ("Reviews/s", 1, 1)
    ours = next((row for row in record.rows if row.system == "ours"), None)
    rows = []
    for row in record.rows:
        cells = {"System": row.system}
        if metric := row.seconds_per_review if alone else row.reviews_per_second:
            cells[unit] = _interval(metric, scale, digits)
            if not alone and ours and (rate := ours.reviews_per_second):
                alike = row.batch_size == ours.batch_size or row.devices > 1  # others do another task
                cells["Against ours"] = f"{metric.value / rate.value:.2f} ×" if alike else "–"
            first = row.first_step_seconds
            cells["Time to first result (s)"] = f"{first:.1f}" if first else ""
            if row.peak_memory_bytes:
                cells["Peak memory (GB)"] = f"{row.peak_memory_bytes / 1e9:.1f}"
            if row.accuracy:
                cells["Accuracy (%)"] = percent_interval(row.accuracy, unit="")
        note = "; ".join(filter(None, (row.note, row.agreement.replace("|", "\\|"))))
        rows.append(cells | {"Note": note})
    return f"{title} (median, slowest and fastest repeat):\n\n{_table(rows)}"


def _parity(record: BenchmarkRecord, title: str) -> str:
    reached = [(row.system, row.validation_accuracy) for row in record.rows if row.validation_accuracy]
    found = " and ".join(f"{a.value:.2%} ({a.low:.2%} to {a.high:.2%}) with engine {e}" for e, a in reached)
    rates = [(row.system, row.reviews_per_second) for row in record.rows if row.reviews_per_second]
    (first, rate), *rest = rates
    faster = "".join(f", {first} {rate.value / other.value:.1f} × as fast as {name}" for name, other in rest)
    return (
        f"{title}: {found}{faster}, of {reached[0][1].n:,} validation reviews, trained on the same "
        f"{record.settings['train']:,} in {record.rows[0].note} (95 % intervals; `{record.command}`)."
    )


def trace_sentence(root: Path = config.ASSETS) -> str:
    """What leaving out the clause that moved the answer most does. Raises ArtifactError: not measured."""
    record = store.read_benchmark("trace", root)
    metrics = {row.system: row.log_odds_change for row in record.rows if row.log_odds_change}
    move, chance, gradient, best = (_interval(metric, 1, 2) for metric in list(metrics.values())[:4])
    return (
        f"Leaving out the clause with the largest move changes the fine-tuned model’s log-odds by {move} on "
        f"average, a random clause by {chance}, the one with the largest gradient × input by {gradient}, and "
        f"the best single clause, found by trying each, by {best} (n = {metrics['largest move'].n:,} test "
        "reviews, 95 % intervals)."
    )


TRIALS = {
    "inputs": "Hostile inputs", "inputs-model": "Hostile inputs, real model",
    "kills": "Scripts killed, then repeated", "mutations": "Damaged artifacts",
    "page": "Hostile links, files, texts in Chromium",
}  # fmt: skip
COUNTS = {
    "inputs": "sent", "refused": "refused", "status 5xx": "answered with status 5xx", "leaks": "texts logged",
    "outside": "requests to elsewhere", "kills": "killed", "resumed": "continued by --resume",
    "equal": "ended the same, bit for bit", "mutations": "tried, the page open with each",
}  # fmt: skip
"""Figures of a trial that are told one by one; of the others how many kinds they are."""


def soak_rows(root: Path = config.ASSETS) -> list[tuple[str, ...]]:
    """What the page and the scripts withstood, column names first. Raises ArtifactError: not tried."""
    record = store.read_soak(root)
    rows = [(f"{one.visitors} visitors, {one.seconds:.0f} s", _crowd(one, record)) for one in record.crowds]
    for name in sorted(record.trials, key=[*TRIALS, *record.trials].index):
        counts = record.trials[name]
        told = [f"{counts[what]:,} {words}" for what, words in COUNTS.items() if what in counts]
        kinds = len(counts) - len(told)
        told = told or [f"{sum(counts.values()):,} tried"]
        rows.append((TRIALS.get(name, name), ", ".join(told + [f"of {kinds} kinds"] * bool(kinds))))
    return [("trial", f"seen on {record.hardware.device}"), *rows]


def _crowd(crowd: Crowd, record: SoakRecord) -> str:
    share, counts = crowd.answers_per_second / record.bare_answers_per_second, crowd.counts
    waits = [f"{what} {p['p50']:.2g} and {p['p95']:.2g} s" for what, p in crowd.percentiles.items()]
    rest = sum(n for what, n in counts.items() if what not in ("answered", "refused", "get /", "tab"))
    return (
        f"{crowd.answers_per_second:.2f} answers with traces a second ({share:.0%} of the bare model's), "
        f"{counts.get('refused', 0):,} refused, {rest:,} hung or failed; p50 and p95: {', '.join(waits)}; "
        f"{crowd.memory_bytes_early / 1e9:.2f} GB, at the end {crowd.memory_bytes_late / 1e9:.2f} GB"
    )


def export_rows(run: store.Run, root: Path = config.ASSETS) -> list[tuple[str, ...]]:
    """The run's adapter in other forms, names of the columns first; empty where that cannot be told."""
    try:
        record = store.read_benchmark("export", root)
        if record.settings.get("adapter_sha256") != store.adapter_sha256(run):
            return []
    except store.ArtifactError:
        return []
    return [("form", "accuracy (95 % interval)", "n", "labels flipped", "mean |Δp|", "largest |Δp|")] + [
        (row.system, percent_interval(row.accuracy), f"{row.accuracy.n:,}", f"{row.flipped:,}",
         f"{row.mean_change:.4f}", f"{row.largest_change:.3f}")
        for row in record.rows if row.accuracy
    ]  # fmt: skip


BENCHMARKS = {
    "train": "Training speed",
    "parity": "Accuracy of the fast path beside the plain one",
    "train-2-gpus": "Training speed on two GPUs",
    "train-1.5b": "Training speed at 1.5 billion parameters",
    "score": "Scoring speed",
    "live": "Live answers",
    "live-avx2": "Live answers by a processor with AVX2 alone",
    "browser": "Answers in a visitor's browser",
}
"""Files under benchmarks/ and their titles; a speed is the median of its repeats."""

DOCUMENTS = {
    "README.md": {"summary": summary_table},
    "docs/results.md": {"results": results_table, "speed": speed_table},
}
"""File -> what stands in it between `<!-- name:begin -->` and `<!-- name:end -->`, by name."""


def refreshed(text: str, document: str, root: Path = config.ASSETS) -> str:
    """A document's `text` with its sections anew; UserError if a marker is missing, twice, or ends first."""
    for name, make in DOCUMENTS[document].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise config.UserError(f"{document} must hold {begin} and then {end}, each once")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make(root)}\n{end}{rest.split(end)[1]}"
    return text


def _records(root: Path) -> list[EvalRecord]:
    """Every evaluation: those of most reviews first, then in the order of SYSTEMS, then by run."""
    order = list(SYSTEMS).index
    return sorted(
        (store.read_eval(folder).record for folder in root.glob("evals/[!.]*/")),
        key=lambda r: (-r.dataset.n, r.dataset.name, order(r.system), r.run_id or "", _base(r), r.eval_id),
    )


def _base(record: EvalRecord) -> str:
    return record.base_model.name if record.base_model else ""


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """In Markdown; the columns are those of all rows, and a dash where a row lacks one."""
    columns = dict.fromkeys(name for row in rows for name in row)
    lines = [columns, ["---" if name in IN_WORDS else "---:" for name in columns]]
    lines += [[row.get(name, "–") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _measured(record: EvalRecord) -> dict[str, str]:
    metric, who = record.metrics.get, record.run_id or _base(record)
    return {
        "System": record.measured_title + (f", `{who}`" if who else ""),
        "Dataset": record.dataset.name,
        "n": f"{record.dataset.n:,}",
        "Accuracy (%, 95 % interval)": percent_interval(metric("accuracy"), unit=""),
        "Accuracy on parsed answers (%)": percent_interval(metric("accuracy_lenient"), unit=""),
        "ROC AUC": _decimals(metric("roc_auc")),
        "ECE": _decimals(metric("ece")),
        "Contrast consistency (%)": percent_interval(metric("consistency"), unit=""),
        "Unparsed": f"{record.unparsed:,}",
        "Hardware": record.hardware.title,
    }


def percent_interval(metric: Metric | None, *, unit: str = " %") -> str:
    """ "95.09 % (94.82–95.35)"; as many digits as n supports; a dash where there is no metric."""
    return "–" if metric is None else _interval(metric, 100, 2 if metric.n >= 10_000 else 1, unit)


def _interval(metric: Metric, scale: float, digits: int, unit: str = "") -> str:
    """ "0.71 (0.57–0.85)"; the value alone where no interval is defined."""
    bounds = [f"{scale * x:,.{digits}f}" for x in (metric.low, metric.high) if x is not None]
    return f"{scale * metric.value:,.{digits}f}{unit}" + (f" ({'–'.join(bounds)})" if bounds else "")


def _decimals(metric: Metric | None) -> str:
    return "–" if metric is None else f"{metric.value:.4f}"


def main(folder: Path = Path()) -> int:
    """folder: where the documents are. Returns the exit status: 0 done, 2 something to correct."""

    def work() -> str:
        for name in DOCUMENTS:
            text = (folder / name).read_text(encoding="utf-8")
            store.write_text(folder / name, refreshed(text, name))
        return ""

    return cli.run(work)


if __name__ == "__main__":
    raise SystemExit(main())
