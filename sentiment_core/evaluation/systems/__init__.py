"""The systems that can be evaluated; read `base` first, then `scored`.

A new one is a file here with a subclass of `base.EvaluatedSystem`, and a line in `sentiment_core.systems`.
"""
