"""How prepare and tokenize scale."""
