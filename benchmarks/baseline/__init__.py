"""The classic baseline, on the same splits."""
