"""`python -m bridge` is `kbridge`."""

from bridge.cli import main

main()
