"""Skills and plugins: which there are, and which are installed."""
