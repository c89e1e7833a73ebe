"""The page's tabs, a module each with `build(context, run)`. Read `live` first."""
