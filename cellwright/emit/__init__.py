"""Targets: what a plan becomes. None of them knows a cell."""
