"""The operator's command, `whylight`."""
