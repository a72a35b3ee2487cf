"""How studies come in over HTTP."""
