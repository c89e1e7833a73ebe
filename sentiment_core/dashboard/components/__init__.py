"""What more than one tab draws. Read `parts` first: every template is filled there."""
