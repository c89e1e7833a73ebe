"""On a ZeroGPU Space a GPU exists only inside functions that `spaces.GPU` marked; here a stand-in marks."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import gradio as gr
import pytest

from sentiment_core.dashboard import host, serving
from sentiment_core.dashboard.api import found_by
from sentiment_core.dashboard.components import answers
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.texts import ReviewTexts
from sentiment_core.live import weights
from tests import waiting
from tests.fake_artifacts import RUN, write_assets
from tests.fake_live import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]
TWO = ["A great film", "A dreadful film"]


class StandIn:
    """`spaces`: counts calls, knows whether one is under way, and sends all through a pickle as it does."""

    def __init__(self) -> None:
        self.inside, self.called = 0, []

    def GPU(self, function, duration):
        def marked(*arguments):
            self.called.append(function.__name__)
            running = iter(function(*pickle.loads(pickle.dumps(arguments))))
            while True:
                self.inside += 1
                try:
                    value = next(running)
                except StopIteration:
                    return
                finally:
                    self.inside -= 1
                yield pickle.loads(pickle.dumps(value))

        return marked


@pytest.fixture
def spaces(monkeypatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(serving, "spaces", stand_in)
    return stand_in


@pytest.fixture
def context(spaces, tmp_path) -> Context:
    class Placed(FakeClassifier):
        """Fails on the other side."""

        on_gpu = False

        def _p(self, text, system):
            assert bool(spaces.inside) == self.on_gpu, "inside and outside of spaces.GPU are mixed up"
            return super()._p(text, system)

    class OnGpu(Placed):
        on_gpu = True

    store = Store(write_assets(tmp_path, n=40, pairs=5))
    return Context(store, serving.Serving(host.ModelHost(Placed), host.ModelHost(OnGpu)), ReviewTexts({}))


def test_batches_run_inside_and_cost_the_visitors_share_and_nothing_else_does(context, spaces) -> None:
    run = context.store.run(RUN)
    shown = waiting.all_of(answers.stream(context, run, "A great film"))
    assert shown[-1]["fine"]["p"] > 0.5
    assert shown[-1]["trace"]["rows"][-1]["text"] == "A great film"
    one = waiting.run(found_by(context.serving.scores(run, TWO[:1])))
    assert (
        len(waiting.all_of(answers.turn(context, RUN, answers.dial_value("A great, funny film.", 0.6, 0.9))))
        == 5
    )
    assert spaces.called == []
    found = waiting.run(found_by(context.serving.scores(run, TWO)))
    assert (found["fine-tuned"][0], found["fine-tuned"][1] < 0.5) == (one["fine-tuned"][0], True)
    assert spaces.called == ["_score"]
    assert spaces.inside == 0


def test_what_the_space_refuses_is_told_in_its_words(context: Context, spaces: StandIn, monkeypatch) -> None:
    def refuse(function, duration):
        def marked(*arguments):
            raise gr.Error('You have used up your GPU time. <a href="https://x">Sign up</a> for more')
            yield

        return marked

    monkeypatch.setattr(spaces, "GPU", refuse)
    refusing = serving.Serving(context.serving.host, context.serving.batch_host)
    told = r"You have used up your GPU time\. Sign up for more"
    with pytest.raises(gr.Error, match=told):
        waiting.run(found_by(refusing.scores(context.store.run(RUN), TWO)))


@pytest.mark.slow
def test_loading_the_model_leaves_cuda_alone(tmp_path, tiny_model) -> None:
    """Until the first call, that is until a marked function runs, no tensor goes to the GPU.

    Without a cache, bitsandbytes would: then a process that sees no GPU makes the weights, here beforehand.
    """
    (made := tmp_path / "made").mkdir()
    assert weights._make(str(tiny_model), "", "bf16", str(made)) == 0
    code = f"""
        import shutil, subprocess, sys, torch
        from sentiment_core.live.classifier import LiveClassifier
        from sentiment_core.models import base_models
        def run_child(command, env, **how):
            assert env["CUDA_VISIBLE_DEVICES"] == env["SPACES_ZERO_GPU"] == ""
            shutil.copytree({str(made)!r}, command[-1], dirs_exist_ok=True)
            return subprocess.CompletedProcess(command, 0)
        base_models.run_child = run_child
        torch.cuda.is_available = lambda: True
        moved = []
        def to(self, *where, _old=torch.Tensor.to, **how):
            if any(str(place).startswith("cuda") for place in (*where, *how.values())):
                moved.append(1)
                return self
            return _old(self, *where, **how)
        torch.Tensor.to = to
        def no(*a, **k): raise AssertionError("CUDA was begun outside of a marked function")
        torch.cuda._lazy_init = torch.cuda.is_bf16_supported = torch.cuda.current_device = no
        for cached in (False, True):
            live = LiveClassifier.load(None, base_model={str(tiny_model)!r}, cuda=True)
            assert live.number_format == "bf16 on GPU", live.number_format
            assert not moved, "loading moved weights"
            assert "bitsandbytes" not in sys.modules, "bitsandbytes begins CUDA"
        try:
            live._system("base")  # what a marked function does first
        except Exception as error:
            assert "marked" not in str(error), error
        print(bool(moved))
    """
    there = {"PYTHONPATH": str(ROOT), "SPACES_ZERO_GPU": "true", "SENTIMENT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=os.environ | there, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]
