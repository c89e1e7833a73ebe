"""The systems that can be evaluated. Read `base` first, then `scored`."""
