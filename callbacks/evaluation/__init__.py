"""Generation of samples and their comparison with data, as several callbacks need it."""
