"""The shared core of train.py, eval.py and app.py. Read `labels`, `prompts` and `config` first."""

__version__ = "0.2.0"
