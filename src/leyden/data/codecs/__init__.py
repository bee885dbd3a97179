"""Typed leaves: what an image, a sound, a mesh, … is as bytes, and as the value a sample holds."""
