"""What people run after training."""
