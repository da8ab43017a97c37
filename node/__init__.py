"""One node: its settings, its HTTP server, its life from start to stop."""
