"""Pictures from trained ControlNets."""
