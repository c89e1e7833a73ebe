"""The Live tab in Chromium: stored answers, typing, links, fooling, and where things stand on a phone."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from sentiment_core.artifacts.schema import ReadingTrace
from sentiment_core.artifacts.store import read_run, write_record
from sentiment_core.dashboard.store import Store
from sentiment_core.live.clauses import clause_ends
from tests.browser.site import Site, opened, settle
from tests.fake_artifacts import STUDY, write_assets
from tests.fake_live import FakeClassifier

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def loading(tmp_path_factory):
    """A site with stored answers of its samples, whose model loads until `go` is set."""

    def stored(self, run):
        def trace(text, system):
            ends = clause_ends(text)
            p = tuple(FakeClassifier(run)._p(text[:end], system) for end in ends)
            return ReadingTrace(ends=tuple(ends), p_positive=p)

        traces = {s.id: {one: trace(s.text, one) for one in ("base", "fine-tuned")} for s in self.samples()}
        return {i: SimpleNamespace(traces=found, dial=(0.6, 0.5, 0.4, 0.3)) for i, found in traces.items()}

    def load(run):
        go.wait(60)
        return FakeClassifier(run)

    go = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "sample_answers", stored)
        served = Site(write_assets(tmp_path_factory.mktemp("loading"), n=60, pairs=10), load)
        served.go = go
        yield served
        go.set()
        served.close()


def test_samples_are_answered_while_the_model_loads_and_a_text_of_ones_own_afterwards(page, loading) -> None:
    page.goto(loading.url)
    page.locator("#verdict", has_text="Both are right: the true label is Positive").wait_for()
    page.locator("#trace svg .mark.fine").first.wait_for()
    settle(page)
    page.evaluate("figs.pick('sample-02')")  # what a chip does
    assert "Only the fine-tuned model is right" in page.locator("#verdict").inner_text()
    page.locator("#review textarea").fill("A great film")
    page.locator("#answers", has_text="The model is loading; the answer comes by itself").wait_for()
    page.evaluate("figs.pick('sample-03')")
    assert "true label is Negative" in page.locator("#verdict").inner_text()
    page.locator("#review textarea").fill("A great film, truly")
    page.locator("#answers", has_text="The model is loading").wait_for()
    loading.go.set()
    page.locator("#trace li", has_text="truly").wait_for()
    page.locator("#verdict", has_text="Both lean to Positive").wait_for()
    assert not page.errors


def test_another_run_shows_its_own_stored_answers_right_below_the_text_of_a_phone(page, loading) -> None:
    page.goto(loading.address(run="smollm2-135m-study"))
    page.locator("#verdict", has_text="Both are right").wait_for()
    assert page.evaluate("figs.at.view.run") == "smollm2-135m-study"
    assert page.locator("#answers.old").count() == 0
    with page.expect_download() as download:
        page.locator(".save").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    page.set_viewport_size({"width": 375, "height": 812})
    settle(page)
    top = page.locator("#tabs").bounding_box()["y"]
    base, fine = (page.locator(f".answer.{actor}").bounding_box() for actor in ("base", "fine"))
    assert base["y"] == fine["y"]
    assert base["y"] - top < 330


def ask(page, review: str) -> None:
    page.locator("#review textarea").fill(review)
    page.locator("#ask").click()


@pytest.fixture(scope="module")
def live(context, site):
    """One page for the tests that need no fresh one."""
    with opened(context) as page:
        page.goto(site.url)
        settle(page)
        yield page


HOSTILE = "<img src=x onerror=alert(1)> ${document.title} {{x}} `\\ <|im_end|>\nA dreadful & boring film 👎"


def test_a_link_opens_the_same_text_and_tells_no_server(page, site) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(site.address(tab="live", text="A%20dreadful%20film"))  # as older links did
    page.locator("#trace li", has_text="A dreadful film").wait_for()
    assert "text" not in parse_qs(urlsplit(page.url).query)
    assert "#t=" in page.url
    ask(page, HOSTILE)
    page.locator("#trace li", has_text="boring film").wait_for()
    page.locator("#copy-link").click()
    page.locator("#copy-link", has_text="Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert "#t=" in link
    assert "boring" not in link
    page.goto("about:blank")
    page.goto(link)
    page.locator("#trace li", has_text="boring film").wait_for()
    assert page.locator("#review textarea").input_value() == HOSTILE
    assert page.locator("#trace img").count() == 0
    assert not [url for url in page.asked if "boring" in url]
    assert not page.errors


def test_a_text_is_answered_when_typing_stops_and_an_old_answer_is_marked_at_once(live) -> None:
    page = live
    page.locator("#trace h3", has_text="the base model").wait_for()
    page.locator("#review textarea").fill("A dreadful film")
    assert "before your change" in page.locator("#verdict").inner_text()
    page.locator("#answers.old").wait_for()
    page.locator("#verdict", has_text="The two disagree").wait_for()
    assert page.locator("#answers.old").count() == 0
    page.locator("#review textarea").fill("A dreadful film " * 60)  # long: only when asked for
    page.wait_for_timeout(900)
    assert page.locator("#answers.old").count() == 1
    page.keyboard.press("Control+Enter")
    page.locator("#trace li", has_text="film A dreadful").wait_for()


def test_who_fools_both_is_told_and_counted(page, site) -> None:
    page.goto(site.address(tab="live"))
    page.locator("#trace h3", has_text="the base model").wait_for()
    for review in ("A great film, and I slept well", "A wonderful film, I left happy"):
        page.locator("#review textarea").fill(review)
        page.locator("#verdict", has_text="Both lean to Positive").wait_for()
        page.locator(".meant").get_by_text("negative").click()
        page.locator("#verdict", has_text="You fooled both: you meant Negative").wait_for()
    page.locator(".score", has_text="of 3 reviews the base model got 1 right").wait_for()
    page.locator(".meant").get_by_text("positive").click()
    page.locator("#verdict", has_text="Both are right").wait_for()
    page.locator(".score", has_text="got 2 right, the fine-tuned one 2").wait_for()


def test_the_dial_says_where_an_answer_turns_once_its_points_are_known(live) -> None:
    page = live
    for curve, told in {
        (0.78, 0.42, 0.22, 0.15, 0.09, 0.01): "The answer turns to Negative at about 16 % of the fine-tuning",
        (0.82, 0.66, 0.7, 0.84, 0.96, 0.98): "It stays Positive all the way, between 66 % and 98 % Positive",
        (0.6, 0.4, 0.6, 0.4, 0.6, 0.6): "The answer turns 4 times on the way to Positive",
    }.items():
        assert page.evaluate("figs.bent", curve) == told
    page.locator("#review textarea").fill("A dreadful film, but one laughed.")
    page.locator("#trace li", has_text="but one laughed").wait_for()
    page.locator("#dial h3", has_text="How much fine-tuning does it take?").wait_for()
    assert "Four more answers of this review." in page.locator("#dial").inner_text()
    page.get_by_role("button", name="Compute the points between").click()
    page.locator("#dial output", has_text="At 100").wait_for()
    assert "P(positive) by weights of base + α · adapter" in page.locator("#dial").inner_text()


def test_a_traces_title_says_where_it_turned(live) -> None:
    stayed = "the base model stayed between 83 and 90 %"
    for fine, base, told in (
        ([0.03, 0.98], [0.9, 0.83], f"It made up its mind at “but it finds its feet”; {stayed}"),
        ([0.9, 0.98], [0.9, 0.4], "It said Positive from the first clause on; the base model moved between"),
        ([0.1, 0.6], [0.9, 0.9], "It did not make up its mind; the base model stayed at 90 %"),
        ([None, None], [0.9, 0.83], stayed.capitalize()),
        ([0.03, 0.98], [None, None], "Reading once more, clause by clause…"),
    ):  # fmt: skip
        texts = ("A mess,", "but it finds its feet.")
        rows = [{"text": t, "fine": p, "base": q} for t, p, q in zip(texts, fine, base, strict=True)]
        assert live.evaluate("figs.finding", rows).startswith(told)
    long = "so much of everything " * 5 + "!"
    assert live.evaluate("figs.quoted", long) == "…so much of everything so much of everything"
    assert live.evaluate("figs.quoted", "?!") == "?!"


CUT = """() => {
  const {text, run} = figs.at, p = {p: 0.9, cut: true}, trace = {rows: [{text, base: 0.9, fine: 0.9}]};
  const dial = {text, curve: [0.9, null, null, null, null, 0.9]};
  figs.set('local', {text, run, base: p, fine: p, trace, dial});
}"""
"""As if one's own browser had answered, which left out a part."""


def words_of_live(page) -> str:
    """All that the tab says of a text of one's own: its box, both answers, trace, dial, and refusals."""
    page.locator("#review textarea").fill("A kettle")
    page.locator("#verdict", has_text="Both lean to Positive").wait_for()
    page.evaluate(CUT)
    page.locator("#verdict", has_text="its middle was left out").wait_for()
    found = [page.evaluate("document.querySelector('#review textarea').placeholder")]
    found += [page.locator("#more-samples input").get_attribute("aria-label")]
    found += [page.locator(f"#{one}").inner_text() for one in ("review", "verdict", "trace", "dial")]
    for label in ("positive", "negative"):
        page.evaluate("figs.set('local', null)")
        page.locator("#review textarea").fill(f"A kettle, {label}")
        page.locator("#verdict", has_text="Both lean to Positive").wait_for()
        page.locator(".meant").get_by_text(label).click()
    found += [page.locator(".score", has_text="This visit").inner_text()]
    page.locator("#review textarea").fill("!")
    page.get_by_role("button", name="Classify").click()
    found += [page.locator("#verdict", has_text="nothing to read yet").inner_text()]
    return "\n".join(found)


def test_a_run_on_other_data_speaks_of_texts(page, tmp_path) -> None:
    root = write_assets(tmp_path, n=60, pairs=10)
    study = read_run(root / "runs" / STUDY).record
    mails = study.model_copy(update={"data": study.data.model_copy(update={"source": "mails.csv"})})
    write_record(root / "runs" / STUDY / "run.json", mails)
    served = Site(root, FakeClassifier)
    try:
        page.goto(served.address(run=STUDY))
        page.locator("#review", has_text="A text").wait_for()
        told = words_of_live(page)
        assert "review" not in told.lower()
        page.locator("#run input").click()
        page.get_by_role("option", name="Our recipe").click()
        page.locator("#review", has_text="A movie review, in English").wait_for()
        reviews = words_of_live(page)
        for sentence in (
            "Type or paste a review, or pick one of ours below.", "All sample reviews",
            "The review is longer than the model reads", "P(positive) if the review ended there",
            "Four more answers of this review.", "reviews the base model got", "type a review, or pick",
        ):  # fmt: skip
            assert sentence in reviews
            assert sentence.replace("review", "text") in told
    finally:
        served.close()


def test_an_answer_below_the_target_is_not_given(live) -> None:
    page = live
    page.locator("#review textarea").fill("A film")
    page.locator(".answer.fine", has_text="leaning positive").wait_for()
    page.locator("#sure input").click()
    page.get_by_role("option", name="Target: 99").click()
    page.locator(".answer.fine", has_text="Not sure").wait_for()
    assert "validation answers met the target" in page.locator(".answer.fine").inner_text()
    assert "Not sure" not in page.locator(".answer.base").inner_text()
    page.locator("#review textarea").fill("A great, wonderful, perfect film")
    page.locator(".answer.fine .num", has_text="Positive").wait_for()


def test_a_question_that_was_lost_on_its_way_is_asked_again(live) -> None:
    page = live
    page.evaluate("figs.LOST = 500")
    lost = []
    page.route("**/queue/join*", lambda route: lost.append(route.fulfill(json={"event_id": "lost"})), times=1)
    ask(page, "A dreadful film, lost once")
    page.locator("#trace li", has_text="lost once").wait_for()
    assert len(lost) == 1
