"""What runs the server somewhere else than in a terminal: a Ray cluster, containers, systemd, Kubernetes."""
