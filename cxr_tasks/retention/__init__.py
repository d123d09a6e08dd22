"""What a store holds, what of it may go, and whether it is whole."""
