"""How long a training takes on a card, and in what memory, before anything starts.

Scaled from the finished run whose base model is nearest in size: time by half-precision arithmetic, memory by
parameters and tokens. Of the committed runs each is told from another base's within a factor of 3.
"""

from pathlib import Path

from sentiment_core.artifacts.schema import RunRecord
from sentiment_core.artifacts.store import list_artifacts, read_benchmark
from sentiment_core.config import ConfigError, TrainConfig

CARDS = {
    "T4": (65, 16), "V100": (125, 16), "L4": (121, 24), "A10G": (70, 24), "RTX 3090": (71, 24),
    "RTX 4090": (165, 24), "A100": (312, 40), "H100": (989, 80), "H200": (989, 141),
}  # fmt: skip
"""Dense half-precision tensor operations, 1e12 a second, and memory, 1e9 bytes, by data sheets."""

FIXED_BYTES = 1.3e9  # the runtime, and what captured graphs hold


def estimate(config: TrainConfig, card: str, assets: Path) -> str:
    """Minutes and memory, in a few sentences. Raises ConfigError: unknown card or base model, or no run to
    scale from."""
    name = {known.upper(): known for known in CARDS}.get(card.upper())
    records = [run.record for run in list_artifacts(assets).runs if run.record and _card(run.record)]
    if not name or not records:
        missing = f"one of {', '.join(CARDS)}" if not name else f"a finished run on one of these in {assets}"
        raise ConfigError(f"--estimate {card!r}: there must be {missing}")
    near, size = nearest(config, records)
    seconds, needed = scaled(near, config, size, name)
    if name in ("T4", "V100"):  # compute capability below 8.0: without the packed engine
        rows = read_benchmark("parity", assets).rows  # of the fastest engine and of those a T4 has
        rates = [row.reviews_per_second.value for row in rows if row.reviews_per_second]
        seconds *= max(rates) / min(rates)
    reviews, memory = config.limit or 25_000, CARDS[name][1]  # as many as IMDB has
    minutes = seconds * reviews * config.epochs / 60
    return (
        f"{config.base_model} on one {name}: about {minutes:.1f} minutes for {reviews:,} reviews × "
        f"{config.epochs}, after loading and warm-up; at least {needed / 1e9:.1f} of its {memory} GB, so it "
        f"{'fits' if needed < 0.9e9 * memory else 'does not fit'}.\n"
        f"Scaled from {near.run_id} on {near.hardware.device}; expect up to 3 times as much, or as little."
    )


def nearest(config: TrainConfig, records: list[RunRecord]) -> tuple[RunRecord, float]:
    """The run on the base model, or on the one nearest in size, with passes of as many reviews; and how many
    times larger the asked base is."""
    base_model = config.base_model
    sizes = {one.base_model.name: one.base_model.parameters for one in records}
    if (parameters := sizes.get(base_model)) is None:
        from huggingface_hub import model_info

        try:
            found = model_info(base_model.partition("@")[0], timeout=10).safetensors
        except Exception as error:  # of the Hub: offline, gone, private, no such name
            raise ConfigError(f"--estimate: the size of {base_model!r} is not known ({error})") from None
        parameters = found.total if found else 0
    if not parameters:
        raise ConfigError(f"--estimate: {base_model!r} states no size on the Hub; known: {', '.join(sizes)}")

    def distance(one: RunRecord) -> tuple[float, int]:
        size = one.base_model.parameters / parameters
        return max(size, 1 / size), abs(_at_once(one.config) - _at_once(vars(config)))

    near = min(records, key=distance)
    return near, parameters / near.base_model.parameters


def scaled(near: RunRecord, config: TrainConfig, size: float, card: str) -> tuple[float, float]:
    """(seconds a review; bytes with one review at a time) of a base `size` times as large as the run's."""
    tokens = near.tokens_per_second / near.reviews_per_second
    weights, pass_tokens = 2 * near.base_model.parameters, _at_once(near.config) * tokens
    a_token = (near.peak_memory_bytes - weights - FIXED_BYTES) / pass_tokens * size ** (2 / 3)
    slower = CARDS[_card(near)][0] / CARDS[card][0] * min(1.0, config.max_length_tokens / tokens)
    needed = FIXED_BYTES + weights * size + a_token * config.max_length_tokens
    return slower * size / near.reviews_per_second, needed


def _at_once(config: dict) -> int:
    return config["micro_batch_size"] or config["batch_size"]


def _card(record: RunRecord) -> str:
    return next((name for name in CARDS if name in record.hardware.device), "")
