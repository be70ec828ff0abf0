"""Side-by-side measurements; each folder has a script and its dated results."""
