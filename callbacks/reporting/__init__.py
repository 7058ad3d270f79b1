"""What callbacks share that write tables, pictures and files, and send them to loggers."""
