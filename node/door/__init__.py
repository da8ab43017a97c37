"""The fast door: appends and followers as length-prefixed frames, on the port of HTTP."""
