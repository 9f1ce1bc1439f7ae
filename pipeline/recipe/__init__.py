"""What a dataset is made of, and how it is run: YAML to checked settings."""
