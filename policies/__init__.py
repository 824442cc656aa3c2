"""What is allowed: policy files, signatures, decisions. No model library."""
