"""The records under `assets/`, typed. `sentiment_core.artifacts.store` reads and writes them."""

from datetime import datetime
from statistics import stdev
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from sentiment_core.config import FORMER_ENGINES
from sentiment_core.metrics.histogram import BINS
from sentiment_core.metrics.intervals import Metric, Record
from sentiment_core.systems import SYSTEMS, known_system

PREDICTION_COLUMNS = ("review_id", "label", "prediction", "p_positive", "tokens", "truncated")
DRAW_COLUMN = "p_positive_{}"  # of the second and further draws of examples; the first is p_positive


class BaseModelInfo(Record):
    """Which pretrained model, and the number format its weights had in the run."""

    name: str
    source: str  # Hub id, folder, or the package that ships the file
    revision: str | None = None  # Hub commit or SHA-256 of the weights file
    parameters: int  # weights of the base, without the adapter; tied weights counted once
    quantization: str  # for example "nf4, double quantization"
    licence: str | None = None

    @property
    def is_large(self) -> bool:
        """Whether a live model of it fills much of a small machine: over a billion parameters."""
        return self.parameters > 1e9


class PromptInfo(Record):
    name: str
    hash: str  # first 16 hex digits of SHA-256 over the rendered prompt, label words and truncation rule


class Hardware(Record):
    device: str  # for example "NVIDIA H200" or a processor's name
    count: int = 1
    memory_bytes: int | None = None
    cpu: str | None = None

    @property
    def title(self) -> str:
        """For example "2 × NVIDIA H200"."""
        return self.device if self.count == 1 else f"{self.count} × {self.device}"


class Confusion(Record):
    """Counts by true label (first word) and answer (second word)."""

    negative_negative: int
    negative_positive: int
    negative_unparsed: int = 0
    positive_negative: int
    positive_positive: int
    positive_unparsed: int = 0


OTHER_FORM = "other"  # the form under which rare answers are summed, one row per outcome


class AnswerForm(Record):
    """How often a free answer took this form (its first words, lower-cased; never review text)."""

    form: str
    count: int
    parsed: Literal["negative", "positive", "unparsed"]


class LoraInfo(Record):
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


class WeightSample(Record):
    """One matrix of the base before it was rounded, each block divided by its largest absolute value."""

    matrix: str  # its name in the model, for example "model.layers.15.self_attn.q_proj"
    shape: tuple[int, int]  # outputs and inputs
    block: int  # weights that share one scale
    counts: tuple[int, ...]  # weights in bins of equal width from -1 to 1
    levels: tuple[float, ...]  # what a weight may become, in the same unit
    error: float  # root mean square of what rounding to `levels` changes, over that of the weights
    even_error: float | None = None  # the same with as many levels at equal distances; None in older runs


class AlsoInfo(Record):
    source: str
    fingerprint: str  # first 16 hex digits of SHA-256 over the train ids in order
    train: int


class DataInfo(AlsoInfo):
    validation: int
    excluded: dict[str, int]  # rows by reason
    also: AlsoInfo | None = None  # another source that was learned from besides

    @property
    def labelled(self) -> int:
        """Reviews that were learned from by their labels."""
        return self.train + (self.also.train if self.also else 0)


class TeacherInfo(Record):
    """The run whose answers to unlabelled reviews another one learned from."""

    run_id: str
    base_model: str
    adapter_sha256: str
    train: int  # labelled reviews that it had learned from
    wall_seconds: float
    source: str
    split: str
    reviews: int  # unlabelled ones, of that source and split
    fingerprint: str  # of their ids, as `DataInfo`'s
    excluded: dict[str, int]
    temperature: float
    weight: float  # of an unlabelled review's loss, beside a labelled one's 1
    teacher: "TeacherInfo | None" = None  # its own


class RunRecord(Record):
    """`run.json`: what was trained, on what, how, and at what cost."""

    schema_version: Literal[2] = 2
    run_id: str
    created_at: datetime
    commit: str | None = None
    base_model: BaseModelInfo
    lora: LoraInfo
    prompt: PromptInfo
    data: DataInfo
    config: dict[str, Any]  # every setting of the run, by flag name
    command: str
    engine: str  # which training path ran: "nf4", "dequantized", "packed" or "generic"
    hardware: Hardware
    versions: dict[str, str]
    wall_seconds: float
    """Training loop, checkpoints included; loading, warm-up and (see `validation_seconds`) validation not."""
    warmup_seconds: float = 0.0  # compiling, capturing and validating once, before the first step
    validation_seconds: float | None = None
    """Validating after it, or after the last --resume; None in older runs, where `wall_seconds` has it."""
    reviews_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    trainable_parameters: int
    steps: int
    validation_accuracy: Metric
    validation_loss: float
    temperature: float = 1.0  # what log-odds are divided by, fitted on the validation reviews
    weights: WeightSample | None = None  # None in older runs
    teacher: TeacherInfo | None = None
    parts: dict[str, str] = Field(default_factory=dict)  # of a soup: its runs and their adapters' SHA-256

    @property
    def max_length_tokens(self) -> int:
        """Of a whole prompt."""
        return int(self.config.get("max_length_tokens") or 1024)


Bins = Annotated[tuple[int, ...], Field(min_length=BINS, max_length=BINS)]  # of `metrics.histogram`


class HistoryRow(Record):
    """One line of `history.jsonl`; training lines have `loss`, evaluation lines `eval_loss`."""

    step: int
    epoch: float
    examples: int  # reviews seen so far
    tokens: int  # prompt tokens seen so far, padding not counted
    seconds: float
    """Since training began; validation (but in older runs) and pauses between resumed parts not counted."""
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    eval_share_positive: float | None = None  # share of the validation reviews that were called Positive
    eval_counts: tuple[Bins, Bins] | None = None  # validation reviews by true label and P(positive)


class DatasetInfo(Record):
    name: str
    split: str
    n: int
    fingerprint: str  # first 16 hex digits of SHA-256 over the review ids in order
    source: str


class Slice(Record):
    """Accuracy of a part of the reviews, for example of those whose version is "edited"."""

    by: str  # the column; of older evaluations also "tokens", "truncated" and "confidence"
    value: str
    accuracy: Metric


class EvalRecord(Record):
    """`eval.json`: one system on one dataset. Every metric can be recomputed from the predictions."""

    schema_version: Literal[2] = 2
    eval_id: str
    system: Annotated[str, AfterValidator(known_system)]
    created_at: datetime
    commit: str | None = None
    base_model: BaseModelInfo | None  # None for a system without a language model, such as an encoder
    run_id: str | None
    prompt: PromptInfo | None
    dataset: DatasetInfo
    metrics: dict[str, Metric]
    confusion: Confusion
    unparsed: int
    slices: tuple[Slice, ...] = ()
    answer_forms: tuple[AnswerForm, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)  # what else it depends on: seeds, token limits
    draw_accuracies: tuple[float, ...] = ()
    """Accuracy with each draw of examples; `metrics` are means over them, all else is of the first. Their
    seeds and review ids are the settings `shot_seeds` and `shot_ids`. Empty for a system without draws."""
    command: str
    wall_seconds: float
    reviews_per_second: float
    hardware: Hardware
    versions: dict[str, str]

    @property
    def encoder(self) -> str:
        """Its name; empty of any other system."""
        return str(self.settings.get("encoder", ""))

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (SYSTEMS[self.system].title, self.encoder)))

    @property
    def measured_title(self) -> str:
        """With what its metrics are means of, if they are: "…, mean of 5 draws, SD 2.1 points"."""
        draws = self.draw_accuracies
        spread = f", mean of {len(draws)} draws, SD {100 * stdev(draws):.1f} points" if draws else ""
        return self.title + spread


class Reference(Record):
    """A published IMDB result, as its source reports it, or what is known of the test labels."""

    name: str
    parameters: int | None
    accuracy: float | None  # fraction in [0, 1]; None of what is no system's result
    protocol: str
    selected_on: str
    """What checkpoint and settings were chosen on, such as "validation", "the test split", "not stated"."""
    source: str
    url: str
    kind: Literal["study-before", "study-after", "published", "label-ambiguity"]
    checked: str  # how far the figure was checked against its source


class SampleReview(Record):
    id: str
    text: str
    label: Literal[0, 1]
    kind: Literal["positive", "negative", "mixed", "sarcastic", "negated"]


DIAL = (0.2, 0.4, 0.6, 0.8)  # how much fine-tuning: the α of weights = base + α · adapter, between 0 and 1


Which = Literal["base", "fine-tuned"]


class ReadingTrace(Record):
    """One model's answer after each row of a review; both tuples are as long as there are rows."""

    ends: tuple[int, ...]  # where the rows end, in characters; the last one is the text's end
    p_positive: tuple[float, ...]  # the last one is the answer


class SampleAnswer(Record):
    """What a run's models say of one of our own reviews."""

    review_id: str
    traces: dict[Which, ReadingTrace]
    dial: tuple[float, ...]  # P(positive) for each α of `DIAL`; empty for a review that is too long for it


class SampleAnswers(Record):
    """`sample_answers.json`: answers, traces and dials of our own reviews, by their ids, made in float32."""

    schema_version: Literal[1] = 1
    adapter_sha256: str
    prompt_hash: str
    number_format: Literal["fp32"] = "fp32"
    answers: dict[str, SampleAnswer]


class BenchmarkRow(Record):
    system: str
    reviews_per_second: Metric | None = None  # median; low and high are the slowest and fastest repeat
    seconds_per_review: Metric | None = None
    log_odds_change: Metric | None = None  # mean absolute one where a clause of a review is left out
    first_step_seconds: float | None = None
    peak_memory_bytes: int | None = None
    validation_accuracy: Metric | None = None
    validation_loss: float | None = None
    accuracy: Metric | None = None  # on test reviews
    flipped: int | None = None  # labels that are not the first row's
    mean_change: float | None = None  # mean absolute difference of P(positive) from the first row's
    largest_change: float | None = None
    devices: int = 1
    batch_size: int | None = None  # reviews an optimizer step, over all devices
    note: str = ""

    @property
    def agreement(self) -> str:
        """With the stored predictions, as of a number format: "199 of 200 labels as stored, …"; or ""."""
        if self.flipped is None or self.mean_change is None or not self.accuracy:
            return ""
        n, change = self.accuracy.n, f"mean |Δp| {self.mean_change:.4f}"
        return f"{n - self.flipped:,} of {n:,} labels as stored, {change}"


class BenchmarkRecord(Record):
    schema_version: Literal[2] = 2
    kind: Literal["train", "score", "live", "parity", "seeds", "trace", "export", "browser"]
    created_at: datetime
    commit: str | None = None
    command: str
    base_model: str
    hardware: Hardware
    versions: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[BenchmarkRow, ...]


class Crowd(Record):
    """So many visitors at once, each asking again and again; every fifth only looks through the tabs."""

    visitors: int
    seconds: float
    counts: dict[str, int]  # how often "answered", "refused", "get /", "tab", "hang" or an error was seen
    answers_per_second: float
    percentiles: dict[str, dict[str, float]]  # what -> p50, p95, p99 of seconds; an answer's with its trace
    memory_bytes_early: int  # of the server, after a third of the time
    memory_bytes_late: int


class SoakRecord(Record):
    """What the page and the scripts withstood: `make soak`."""

    schema_version: Literal[1] = 1
    created_at: datetime
    commit: str | None = None
    hardware: Hardware
    versions: dict[str, str]
    bare_answers_per_second: float  # of the model alone, in a loop, traces included
    crowds: tuple[Crowd, ...]
    trials: dict[str, dict[str, Any]]  # name of a kind of trial -> its counts


def upgraded(kind: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an older version as the present one; anything else as it is.

    Version 2 dropped an evaluation's `reliability`, which follows from the predictions, and renamed two
    engines.
    """
    if kind not in (RunRecord, EvalRecord) or content.get("schema_version", 1) != 1:
        return content
    content = {key: value for key, value in content.items() if key != "reliability"} | {"schema_version": 2}
    if (engine := content.get("engine")) in FORMER_ENGINES:
        content["engine"] = FORMER_ENGINES[engine]
    return content
