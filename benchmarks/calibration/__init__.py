"""Ways of choosing thresholds and of scaling probabilities, on validation alone."""
