"""The bytes of a dataset: chunk files, manifests, versions. Reads and writes them; knows no loader and no job."""
