"""The fused fast path for Llama on a GPU. Read `layout` first, then `model`; nobody else imports the rest."""
