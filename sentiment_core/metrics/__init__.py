"""Every number with its interval. Read `classification` first; `slices` has the parts."""
