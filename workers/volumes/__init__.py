"""A series' slices put together to one volume, or refused."""
