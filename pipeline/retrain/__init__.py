"""Training as a job of the cluster."""
