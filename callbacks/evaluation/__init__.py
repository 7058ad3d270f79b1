"""What callbacks share that generate samples and compare them with data."""
