"""Token maps of images and rolls, cached."""
