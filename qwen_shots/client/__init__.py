"""From a film file to a shot list."""
