"""One review, answered on two CPU cores or a GPU. Read `classifier` first, then `forward`."""
