"""What a result depends on besides code and data: hardware, versions, commit, command line."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from sentiment_core.artifacts.schema import Hardware, RunRecord

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "scikit-learn",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def hardware(device: str = "cpu", count: int = 1) -> Hardware:
    """The devices that a computation ran on. device: "cpu" or "cuda"."""
    if device != "cuda":
        return Hardware(device=cpu_name(), count=1, cpu=cpu_name())
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Hardware(device=properties.name, count=count, memory_bytes=properties.total_memory, cpu=cpu_name())


def peak_memory() -> int:
    """Bytes of memory that this process had at most."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return 1024 * int(found[1])  # `getrusage` counts the process that started this one, too
    import psutil

    if hasattr(info := psutil.Process().memory_info(), "peak_wset"):
        return info.peak_wset  # Windows
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def commit() -> str | None:
    """The checked-out commit, with "+" when tracked code differs from it. `SENTIMENT_COMMIT` overrides."""
    if os.environ.get("SENTIMENT_COMMIT"):
        return os.environ["SENTIMENT_COMMIT"]
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return _git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parents[2]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def differences(then: RunRecord, now: RunRecord) -> str:
    """One line on what was not as it had been: accuracy, reviews, hardware, versions of packages."""
    pairs = {"reviews": (then.data.fingerprint, now.data.fingerprint)}
    pairs["hardware"] = (then.hardware.title, now.hardware.title)
    pairs |= {name: (then.versions.get(name, "?"), version) for name, version in now.versions.items()}
    found = [f"{name} {was} → {is_now}" for name, (was, is_now) in pairs.items() if was != is_now]
    reached = f"accuracy there {then.validation_accuracy.value:.2%}"
    return f"Repeats         {then.run_id} ({reached}); differs in: {', '.join(found) or 'nothing'}"


def command_line() -> str:
    """How the program was called, with folders that are this machine's own shortened to their last part."""
    script, flags = Path(sys.argv[0]), sys.argv[1:]
    words, folders = [script.name], script.with_suffix("").parts
    if "sentiment_core" in folders:
        words = ["-m", ".".join(folders[folders.index("sentiment_core") :]).removesuffix(".__main__")]
    words += [Path(flag).name if flag.startswith(("/", ".")) else flag for flag in flags]
    return ("python " if script.suffix else "") + shlex.join(words)  # without one it is sentiment-train
