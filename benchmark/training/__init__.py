"""What precedes a training."""
