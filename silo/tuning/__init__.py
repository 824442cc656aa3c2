"""``archipel tune``: what a plan says, or a released model is used with, chosen by trying."""
