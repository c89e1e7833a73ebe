"""One call of eval.py: systems answer the reviews of a test set, each becomes a folder of assets/evals.

Read `runner.evaluate` first. `inputs` gathers what all systems of a call share, `systems/` holds one file for
each kind of system, `shards` scores rows in parts that survive an interruption, on every process of a launch.
"""
