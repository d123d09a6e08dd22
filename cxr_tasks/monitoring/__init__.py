"""Whether new images still look and behave like those that a champion was tested on."""
