"""The tile kernels of attention: values, gradients, and that they compile for the GPUs they are for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent


@pytest.mark.slow
def test_kernels_equal_the_reference():
    """On a GPU, or else in Triton's interpreter, which has to be asked for before Triton is imported."""
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    cases = str(HERE / "attention_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cases]
    done = subprocess.run(command, env=os.environ | interpreted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("capability", "dtype", "heads"),
    [(80, "fp16", (9, 3, 64, 1)), (90, "bf16", (9, 3, 64, 1)), (90, "bf16", (12, 2, 128, 2))],
)
def test_kernels_compile_without_a_gpu(capability, dtype, heads):
    """To machine code, for the shapes of SmolLM2 and of Qwen2.5, whose heads go in pairs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sentiment_core.engines.packed import kernels

    sizes = dict(zip(("H", "KV", "D", "PAIR"), heads, strict=True))
    sizes |= {"PREFIX": 28, "PB": 32, "BLOCK": 64, "STEP": 64, "CHUNK": 256}
    types = dict.fromkeys(("qkv", "rotated", "out", "d_out", "cos", "sin", "d_qkv"), f"*{dtype}")
    types |= dict.fromkeys(("lse", "delta", "partial", "summed"), "*fp32")
    types |= {"tiles": "*i32", "total": "i32", "scale": "fp32", "root": "fp32"}
    parts = ("rotate", "forward", "backward_queries", "backward_keys", "backward_prefix", "write_prefix")
    for kernel in (getattr(kernels, part) for part in parts):
        constants = {name: sizes[name] for name in kernel.arg_names if name in sizes}
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
        assert compiled.asm["cubin"]
