"""A run's checkpoints: the newest whole one found again and given to every host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState

from sentiment_core.config import ConfigError
from sentiment_core.engines.device import DeviceContext, decided_by_main
from sentiment_core.models.base_models import SEAL, is_intact


def step_of(checkpoint: Path) -> int:
    """The step after which it was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path:
    """The newest checkpoint that is whole; newer ones, cut short by a kill or damaged, are removed.

    Raises ConfigError where there is none.
    """
    for checkpoint in sorted(folder.glob("checkpoint-[0-9]*"), key=step_of, reverse=True):
        if is_whole(checkpoint):
            return checkpoint
        say(f"Left out: {checkpoint} was not written to its end, or was damaged since.")
        shutil.rmtree(checkpoint)
    raise ConfigError(f"--resume: there is no checkpoint in {folder}; start the run without it")


def is_whole(checkpoint: Path) -> bool:
    """Whether it is as it was sealed, and so is the best one, which the run's end goes back to."""
    if not is_intact(checkpoint):
        return False
    best = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["best_global_step"]
    return best is None or is_intact(checkpoint.with_name(f"checkpoint-{best}"))


def on_every_host(checkpoint: Path, context: DeviceContext) -> Path:
    """The main process's checkpoint, copied to each host that has it not: its work folder may be its own."""
    if context.world_size > 1:
        files = decided_by_main(
            context, lambda: {file.name: file.read_bytes() for file in checkpoint.iterdir()}
        )
        same = is_intact(checkpoint) and (checkpoint / SEAL).read_bytes() == files[SEAL]
        if context.first_on_host and not same:
            shutil.rmtree(checkpoint, ignore_errors=True)  # of another run
            checkpoint.mkdir(parents=True)
            for name, content in files.items():
                (checkpoint / name).write_bytes(content)
        PartialState().wait_for_everyone()
    return checkpoint
