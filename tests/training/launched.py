"""What each of several processes does under a launcher; the first argument says what, as JSON.

{"train": each run's flags, "stop": whether each stops at step 5 and resumes, "eval" and "predict": flags,
"shares": folder}
"""

import gc
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

import eval as evaluation
import train
from sentiment_core.evaluation import predict, runner
from sentiment_core.training import trainer

gc.freeze()  # what is imported; collecting garbage is quick then
ASKED = json.loads(sys.argv[1])
trained: set[int] = set()


def watched(collate):
    def remember(self, rows, *more):
        trained.update(rows.tolist())
        return collate(self, rows, *more)

    return remember


def stopping(self, args, state, control, **kwargs):
    if state.global_step == 5:
        raise KeyboardInterrupt


def counting(inputs, work, table, texts, answer=predict._answered):
    with Path(ASKED["shares"], f"predicted-{os.environ['RANK']}").open("a") as lines:
        print(len(texts), file=lines)
    return answer(inputs, work, table, texts)


for kind in (trainer.MicroBatches, trainer.PackedBatches):
    kind.collate = watched(kind.collate)
for flags in ASKED["train"]:
    trained.clear()
    if ASKED.get("stop"):
        going_on, trainer.History.on_step_end = trainer.History.on_step_end, stopping
        assert train.main(flags) == 130
        trainer.History.on_step_end = going_on
        flags = [*flags, "--resume"]
    assert train.main(flags) == 0
    assert torch.distributed.get_world_size() == int(os.environ["WORLD_SIZE"]) == 2
    share = Path(ASKED["shares"], f"{Path(flags[flags.index('--work') + 1]).name}-{os.environ['RANK']}.json")
    share.write_text(json.dumps(sorted(trained)))
if "eval" in ASKED:
    runner.shutil = SimpleNamespace(rmtree=lambda *_, **__: None)  # who scored what is read from the parts
    assert evaluation.main(ASKED["eval"]) == 0
if "predict" in ASKED:
    predict._answered, predict.ROWS = counting, {"cpu": 8}
    assert evaluation.main(ASKED["predict"]) == 0
