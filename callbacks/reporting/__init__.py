"""Tables, pictures and files that several callbacks write, and sending them to loggers."""
