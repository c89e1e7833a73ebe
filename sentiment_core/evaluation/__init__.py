"""One call of eval.py. Read `runner` first, then `inputs`; `systems/` holds a file for each kind."""
