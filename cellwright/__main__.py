"""`python -m cellwright`: the command line where no folder of scripts is on the path."""

from .app.cli import main

main()
