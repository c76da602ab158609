"""Tasks: data, model and metric, one file each. Floor 5: imports nothing from `train`."""
