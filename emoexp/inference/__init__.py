"""A trained model at work: loaded, asked, judged, exported."""
