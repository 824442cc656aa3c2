"""What a silo learns for itself alone: models of its own rows, and their blend with federated ones."""
