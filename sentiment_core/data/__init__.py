"""Reviews from any source in one shape. Read `reviews` first; `sources` opens what they come from."""
