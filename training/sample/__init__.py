"""Pictures from trained networks (paper 4.1)."""
