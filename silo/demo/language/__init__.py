"""The demo of family ``language``: shops without an item in common, and one that joins later."""
