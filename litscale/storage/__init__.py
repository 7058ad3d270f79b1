"""The lowest floor: files that are whole or absent, and readers that never run what a file holds."""
