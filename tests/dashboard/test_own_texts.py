"""A run that learned from somebody's own CSV: the page speaks of texts, not of reviews."""

import re
from pkgutil import resolve_name

import gradio as gr
import pytest

from sentiment_core.artifacts import store
from sentiment_core.dashboard.components import header
from tests.dashboard.test_header import words
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, TEACHER, write_assets, write_eval, write_run

SOURCE = "mails.csv?text_column=body&label_column=stars&label_map=1=negative,5=positive"
TABS = ("accuracy", "loss", "confusion", "examples")


def own(root, n=200):
    """A run on mails, taught by another; both models and a rival answered mails, and nothing else."""
    record = write_run(root, RUN, taught=TEACHER.model_copy(update={"source": "mails.csv"}))
    data = record.data.model_copy(update={"source": SOURCE})
    store.write_record(root / "runs" / RUN / "run.json", record.model_copy(update={"data": data}))
    for system, run_id in (("baseline-scored", None), ("tfidf-logreg", None), ("fine-tuned", RUN)):
        write_eval(root, system, "mails", n, run_id=run_id, better=0.3 * (run_id is not None))
    texts = {f"{i:016x}": f"Mail {i}. Where is my kettle?" for i in range(n)}
    return context_of(root, texts=texts)


def told(context, tab):
    """What a tab says, figures among it."""
    with gr.Blocks():
        run = gr.Dropdown([RUN], value=RUN)
        part = resolve_name(f"sentiment_core.dashboard.tabs.{tab}:build")(context, run)
    shown = part.render(RUN, *(one.value for one in part.inputs))
    return " ".join(str(getattr(one, "value", one)) for one in shown)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The same of mails and of IMDB: place -> what it says."""
    contexts = own(tmp_path_factory.mktemp("own")), context_of(write_assets(tmp_path_factory.mktemp("imdb")))
    return [
        {tab: told(context, tab) for tab in TABS}
        | {"head": "".join(map(words, header.head_html(context, context.store.run(RUN))))}
        | {"menu": header.run_titles(context, story=True)[RUN]}
        for context in contexts
    ]


SENTENCES = (
    ("head", "movie reviews the right label"),
    ("menu", " reviews"),
    ("accuracy", " reviews, fine-tuning raised accuracy"),
    ("accuracy", "against the fine-tuned model, on the same reviews"),
    ("accuracy", '"noun": "reviews"'),  # of the moving histograms
    ("loss", "n = 1,000 reviews, outside the training time"),
    ("loss", '"noun": "reviews"'),
    ("confusion", "the share of the reviews predicted as a class"),
    ("examples", " reviews: wrong before, right after fine-tuning"),
)


@pytest.mark.parametrize(("place", "sentence"), SENTENCES)
def test_mails_are_texts_and_imdb_has_reviews(pages, place, sentence):
    mails, imdb = (page[place] for page in pages)
    assert sentence in imdb
    assert sentence.removeprefix("movie ").replace("reviews", "texts") in mails
    assert "review" not in re.sub('data-review=|"reviews":', "", mails).lower()
