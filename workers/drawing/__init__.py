"""Pictures of maps: colors, overlay and legend."""
