"""One run of train.py. Read `session` first; `trainer` has the steps."""
