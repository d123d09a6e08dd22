"""CovidGAN: its networks, its training, and what its images are worth. Works on arrays; nothing here reads a store."""
