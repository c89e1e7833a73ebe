"""DataFrames in, Plotly figures out. Read `style` first, then the figures of `evaluation` and `training`."""
