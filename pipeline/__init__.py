"""Floor 3: recipes, plans, builds and the command line; the only package that imports ray."""
