"""Small checks of this repository that no published tool does; `make check` runs them."""
