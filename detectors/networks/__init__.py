"""The networks themselves: torch code, imported only where one is loaded."""
