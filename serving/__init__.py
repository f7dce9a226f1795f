"""What stands between the port and the routes: the process, its fronts, connections, and a request's way in."""
