"""The ladder from the majority answer to full fine-tuning."""
