"""Mathematics: numbers and bytes. No network, no policy files, no rows of anybody's table."""
