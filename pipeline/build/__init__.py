"""All units of a plan, in this process or on Ray, with their log and figures."""
