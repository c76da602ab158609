"""The training loop, its schedule, its display and its run folder. Floor 5: knows a task by a protocol only."""
