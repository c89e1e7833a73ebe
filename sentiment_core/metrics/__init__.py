"""Every number with its interval. Read `classification` first; `intervals` has the statistics, `slices` the parts."""
