"""The HTTP face of a node: routes, bodies, problems, forwarding to the leader."""
