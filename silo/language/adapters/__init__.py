"""Small trained parts on the last layers of a frozen text encoder, with gradients told apart by person."""
