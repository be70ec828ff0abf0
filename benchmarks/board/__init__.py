"""What the exported classifier costs on a small computer."""
