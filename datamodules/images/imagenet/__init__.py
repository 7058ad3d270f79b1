"""ImageNet in the forms in which it is kept: folders, arrays, parquet."""
