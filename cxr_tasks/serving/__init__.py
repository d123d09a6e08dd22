"""A registered model as a service: image files in, classes with probabilities and warnings out."""
