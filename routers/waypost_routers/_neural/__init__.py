"""Small networks and factor models, trained by epochs in numpy."""
