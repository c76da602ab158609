"""The ways in: the command line and what it calls. Floor 6."""
