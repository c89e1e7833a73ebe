"""Which base model, loaded and rounded to NF4, with an adapter, and reviews as its tokens. Read `loading` first."""
