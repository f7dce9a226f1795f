"""What the server's ways cost, each against a plain baseline in the same run. Nothing imports this."""
