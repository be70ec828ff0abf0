"""Whether another way to train would do better: methods and settings, on validation."""
