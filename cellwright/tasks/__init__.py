"""Tasks: data, model and metric, one file each. Floor 4: imports nothing from `train`."""
