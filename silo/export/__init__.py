"""Models as files for other programs, smaller where asked for, with what became of their quality."""
