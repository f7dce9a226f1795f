"""The command line: `qwen-shots`. Each command is a file here, and its name in `main`."""
