"""Raw images as found: listed, measured, judged, ranked."""
