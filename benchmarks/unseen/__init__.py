"""Driver utterances by an author who never saw the training data."""
