"""``python -m litscale``."""

from litscale.cli.main import main

main()
