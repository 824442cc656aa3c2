"""``archipel adapt``: local parts follow new interactions; how old the federated part has become."""
