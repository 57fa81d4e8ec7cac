"""The static site: its pages, and the pictures in them that one can turn, play and point at."""
