"""``python -m streammem``: the same as the command."""

from streammem.cli.main import main

main()
