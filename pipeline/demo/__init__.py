"""The demonstration: the product's own commands in a row, on photographs and on drawn shapes."""
