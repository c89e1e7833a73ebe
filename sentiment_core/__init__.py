"""Shared core of train.py, eval.py and app.py. Importing it loads nothing heavy."""
