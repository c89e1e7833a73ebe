"""The fused fast path for Llama and Qwen2 on a GPU. Read `layout`, then `model`; the rest is theirs alone."""
