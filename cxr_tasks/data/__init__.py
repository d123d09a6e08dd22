"""From a source of X-rays to a validated, split, packed dataset."""
