"""Raw files become streams that are fast, exact and never lose a sample.

`optimize` and `map` prepare data in durable jobs; `StreamingDataset` and `StreamingDataLoader` read it from a local disk, S3,
GCS, Azure or HTTP, in an order that depends on nothing but the data and the seed. Names are loaded when they are used.
"""
