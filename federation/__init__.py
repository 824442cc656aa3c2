"""Protocol and coordinator. Never sees a row or a secret key of the encryption."""
