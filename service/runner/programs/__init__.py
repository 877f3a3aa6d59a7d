"""Programs for people of which a host runs one: the editor and the desktop."""
