"""What silos that know the same people pass on in turn, through a coordinator without keys."""
