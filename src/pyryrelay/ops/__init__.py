"""What the operator sees: health, metrics, logs, and whether the machine is fit for the settings."""
