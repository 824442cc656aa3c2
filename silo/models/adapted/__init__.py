"""The ``language`` family where a part of the text encoder is trained as well."""
