"""A separable set of reviews in our own words, for training the tiny model; made from a seed."""

import random
from pathlib import Path

import pandas as pd

GOOD = ["superb", "moving", "brilliant", "warm", "funny", "gripping", "lovely", "clever", "radiant", "honest"]
BAD = ["dreadful", "boring", "clumsy", "cold", "dull", "tedious", "ugly", "stupid", "lifeless", "fake"]
SUBJECTS = ["plot", "acting", "score", "camera", "script", "cast", "ending", "pace", "dialogue", "lighting"]
OPENERS = ("Frankly, the", "To me the", "All in all the", "Once again the", "I found that the")


def sentence(words: list[str], rng: random.Random) -> str:
    return f"{rng.choice(OPENERS)} {rng.choice(SUBJECTS)} was {rng.choice(words)} and {rng.choice(words)}."


def frame(n: int, seed: int) -> pd.DataFrame:
    """n reviews of one to four sentences, half of each label, in random order, all different."""
    rng = random.Random(seed)
    rows: dict[str, int] = {}
    while len(rows) < n:
        label = len(rows) % 2
        text = " ".join(sentence(GOOD if label else BAD, rng) for _ in range(rng.randint(1, 4)))
        rows.setdefault(text, label)
    items = list(rows.items())
    rng.shuffle(items)
    return pd.DataFrame(items, columns=["text", "label"])


def write_dataset(folder: Path, *, train: int = 480, test: int = 80) -> Path:
    """A folder with train.parquet and test.parquet that share no text."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = frame(train + test, seed=5)
    everything[:train].to_parquet(folder / "train.parquet")
    everything[train:].to_parquet(folder / "test.parquet")
    return folder
