"""What runs the networks, and what networks of one kind share: torch, LiteRT."""
