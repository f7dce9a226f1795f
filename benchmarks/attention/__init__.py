"""The text's attention over a batch that is read, as the server works it out and otherwise."""
