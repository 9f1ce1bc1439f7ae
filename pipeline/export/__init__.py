"""A trained network as a folder that others take: plain diffusers loads it, a hub shows it."""
