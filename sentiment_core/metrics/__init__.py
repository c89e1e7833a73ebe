"""Every number with its interval. Read `classification` first."""
