"""What runs the product: the embedded stack, images, and the configuration of servers."""
