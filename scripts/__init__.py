"""Small helpers of the shell scripts."""
