"""Sources to one ranked table: source.parquet."""
