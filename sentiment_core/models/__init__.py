"""Which base model, rounded to NF4 with an adapter on it, and its tokens. Read `loading` first."""
