"""One unit: images to one tar, one table of rows and one commit; knows no Ray."""
