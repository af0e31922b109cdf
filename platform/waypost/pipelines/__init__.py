"""From questions to routing data to trained artifacts."""
