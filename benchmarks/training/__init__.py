"""How fast training is, beside other ways to train the same encoder on the same data."""
