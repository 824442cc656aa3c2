"""The label silo's model of its own items and its partners' features, and the weights of both."""
