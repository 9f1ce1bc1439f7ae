"""The report: numbers (what is counted), figures (how it is drawn), page (the one HTML file)."""
