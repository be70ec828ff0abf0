"""Scores by which a classifier could refuse to answer."""
