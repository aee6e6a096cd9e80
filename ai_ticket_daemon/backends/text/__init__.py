"""Text on its way to a server and back: made harmless, cleaned, cut, parted and quoted."""
