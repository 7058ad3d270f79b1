"""``python -m litscale``."""

from litscale.cli import main

main()
