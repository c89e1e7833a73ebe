"""Where and how a model computes many reviews. Read `scorer` first; `packed` is the fused fast path."""
