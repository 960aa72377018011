"""How good a model's tracks are: J and F over data sets of videos with true masks."""
