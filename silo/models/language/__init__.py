"""Family ``language``: silos that rank different items learn one network over their public texts."""
