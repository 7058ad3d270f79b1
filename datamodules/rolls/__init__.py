"""Piano rolls: sources, their cache, crops and requests."""
