"""Images: decoding, sources, requests."""
