"""What more than one tab draws. Read `html` first: every template is filled there."""
