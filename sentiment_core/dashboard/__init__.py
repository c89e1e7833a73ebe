"""The dashboard: one file per tab, each a function that builds its part. Imports no torch."""
