"""What is told of a run: progress, record, status, metrics, notification."""
