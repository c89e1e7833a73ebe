"""A system and a tab are a file and a line each: one of both is added, evaluated, and shown by the page."""

import textwrap
from pathlib import Path

import gradio as gr
import pytest

from sentiment_core.config import EvalConfig
from sentiment_core.dashboard import app, tabs
from sentiment_core.evaluation import systems
from sentiment_core.evaluation.runner import evaluate
from sentiment_core.systems import SYSTEMS, System
from tests.fake_live import FakeClassifier
from tests.own_reviews import write_dataset

SYSTEM = """
    import numpy as np

    from sentiment_core.evaluation.systems.base import EvaluatedSystem, Work


    class LongIsGood(EvaluatedSystem):
        origin = "toy"

        def work(self) -> Work:
            lengths = np.array([len(text) for text in self.inputs.test.reviews.texts])
            p = (lengths / lengths.max())[:, None]
            return Work(lambda rows: iter([(np.arange(len(rows)), p[rows])]), width=1)
"""

TAB = """
    import gradio as gr

    from sentiment_core.dashboard.context import Context, TabPart


    def build(context: Context, run: gr.Dropdown) -> TabPart:
        shown = gr.HTML(elem_id="toy")
        return TabPart(lambda run_id: [f"{len(context.store.listing().evals)} evaluations"], [], [shown])
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files, in their packages as far as Python sees, and the line that registers each."""
    for package, name, content in ((systems, "toy_system", SYSTEM), (tabs, "toy", TAB)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(content))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    work = "sentiment_core.evaluation.systems.toy_system:LongIsGood"
    monkeypatch.setitem(SYSTEMS, "toy", System("toy", "Long is good", "Long", work, "run2", "star"))
    monkeypatch.setitem(app.TABS, "toy", "Toy")
    return tmp_path


def test_a_system_and_a_tab_are_a_file_and_a_line(toys: Path, tiny_model: Path) -> None:
    dataset = write_dataset(toys / "reviews", train=40, test=20)
    config = EvalConfig(system="toy", dataset=str(dataset), base_model=str(tiny_model))
    [(record, _)] = evaluate(config, assets=toys / "assets", work=toys / "work")
    assert record.title == "Long is good"
    assert record.metrics["accuracy"].n == 20

    demo = app.build(toys / "assets", FakeClassifier.load, texts={})
    assert [one.label for one in demo.blocks.values() if isinstance(one, gr.Tab)][-1] == "Toy"
    html = [fn.fn for fn in demo.fns.values() if fn.outputs and fn.outputs[0].elem_id == "toy"]
    assert html[0](None) == ["1 evaluations"]
    accuracy = next(
        fn.fn for fn in demo.fns.values() if any(out.elem_id == "systems-plot" for out in fn.outputs)
    )
    drawn = accuracy(None, record.dataset.name, False, "parameters", "accuracy", "")
    assert any("Long is good" in str(getattr(value, "value", "")) for value in drawn)
