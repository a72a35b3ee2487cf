"""Drawn mammograms of four views, for the model that takes several images of a study at once."""
