"""The fast door: appends as length-prefixed frames, on the port that HTTP is served on."""
