"""How the bundled checkpoints come about. Nothing imports this."""
