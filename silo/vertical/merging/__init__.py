"""A list that is made on the person's own device, of what each silo gives them there."""
