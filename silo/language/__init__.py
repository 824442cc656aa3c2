"""Public item texts as vectors: a pretrained encoder, checked file by file, and the space they share."""
