"""The page; imports no torch. Read `app` first; a click goes `tabs.live`, `components.answers`, `serving`."""
